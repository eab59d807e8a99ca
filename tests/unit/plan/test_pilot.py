"""How the pilot measures the speed and memory of the machine."""

from __future__ import annotations

import pytest

from keeptune.plan import pilot
from keeptune.plan.pilot import Clock, peak_memory


def test_the_clock_takes_the_median_step_and_the_last_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 20.0, 29.0, 30.0, 31.0, 40.0, 43.0, 50.0, 52.0, 57.0])
    monkeypatch.setattr(pilot.time, "monotonic", lambda: next(now))
    clock = Clock()
    clock.on_train_begin(None, None, None)
    for _ in range(4):
        clock.on_step_begin(None, None, None)
        clock.on_step_end(None, None, None)
    clock.on_train_end(None, None, None)
    assert clock.step == 2.0, "of 1, 3 and 2 seconds; the 9 of the first step warm up"
    assert (clock.reading, clock.inside) == (5.0, 47.0)


def test_one_step_alone_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([1.0, 4.0])
    monkeypatch.setattr(pilot.time, "monotonic", lambda: next(now))
    clock = Clock()
    clock.on_step_begin(None, None, None)
    clock.on_step_end(None, None, None)
    assert clock.step == 3.0


def test_the_peak_of_memory_is_that_of_a_process_with_torch_loaded() -> None:
    assert 50 * 2**20 < peak_memory() < 2**40
