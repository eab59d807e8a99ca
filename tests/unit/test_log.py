"""Progress off a terminal: lines with time left, honest after a resume."""

from __future__ import annotations

import itertools

import pytest

from keeptune import log


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count(0.0, 6.0)
    monkeypatch.setattr(log.time, "monotonic", lambda: next(ticks))


def test_lines_tell_what_is_done_and_how_long_it_will_take(capsys: pytest.CaptureFixture[str], clock: None) -> None:
    with log.track("Working", 100, "steps") as task:
        for _ in range(4):
            task.advance(10, note="loss 1.5")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Working: 20/100 steps, 48s left  loss 1.5"
    assert lines[-1] == "Working: 40/100 steps in 30s"


def test_work_done_before_does_not_shorten_the_estimate(capsys: pytest.CaptureFixture[str], clock: None) -> None:
    with log.track("Working", 100, "steps") as task:
        task.skip(60)
        task.advance(10)
        task.advance(10)
    assert capsys.readouterr().err.splitlines()[0] == "Working: 80/100 steps, 12s left"


def test_short_work_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with log.track("Working", 2, "steps") as task:
        task.advance(2)
    assert capsys.readouterr().err == ""


def test_duration() -> None:
    assert [log.duration(seconds) for seconds in (3.2, 59.6, 75, 3600)] == ["3s", "1m00s", "1m15s", "60m00s"]
