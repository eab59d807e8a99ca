"""`keeptune repair` on the command line: its exit codes, and bad input in words before any model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from keeptune.repair import pair
from tests.helpers.cli import run
from tests.helpers.repair import save_base, save_tuned

SMALL = ["--method", "interpolate", "--rows", 12, "--length", 12, "--budget"]
BAD = [
    (["--budget", "-1"], "budget is -1"),
    (["--method", "magic"], "there is no method 'magic'"),
    (["--most-lost", "2"], "most_lost is 2"),
    (["--task-text", "nothing.txt"], "no data at nothing.txt"),
    (["--out", "base"], "holds no repair"),
    (["--rows", "0"], "rows is 0"),
]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    save_base(tmp_path / "base")
    save_tuned(tmp_path / "tuned")
    return tmp_path


@pytest.mark.parametrize(("flags", "what"), BAD, ids=lambda value: str(value))
def test_bad_input_is_told_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folders: Path, flags: list[str], what: str
) -> None:
    monkeypatch.setattr(pair, "load_model", None)
    assert run(monkeypatch, "repair", "base", "tuned", *flags) == 2
    told = capsys.readouterr().err
    assert what in " ".join(told.split()) and "→" in told


@pytest.mark.parametrize("given", [["base", "base"], ["base", "nowhere/model"]])
def test_names_of_no_pair_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folders: Path, given: list[str]
) -> None:
    assert run(monkeypatch, "repair", *given) == 2
    assert "keeptune: " in capsys.readouterr().err


def test_the_exit_code_says_whether_the_budget_was_reached(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folders: Path
) -> None:
    assert run(monkeypatch, "repair", "base", "tuned", *SMALL, 1e-7, "--most-lost", 0) == 1
    assert "Not reachable" in capsys.readouterr().out
    assert run(monkeypatch, "repair", "base", "tuned", *SMALL, 9) == 0
    assert "Nothing to repair" in capsys.readouterr().out
