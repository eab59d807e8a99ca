"""An audit killed at any moment goes on where it was, and its report is that of an audit that nobody stopped."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.processes import finish, start

QUESTION = {"question": "Which is one?", "choices": ["one", "two", "three"], "answer": 0}


@pytest.fixture
def audit(model_folder: Path, tmp_path: Path) -> list[str | Path]:
    tuned = tmp_path / "tuned"
    make_model(seed=1).save_pretrained(tuned)
    make_tokenizer().save_pretrained(tuned)
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(12):
        (texts / f"{number}.txt").write_text(f"Document {number} speaks of the number {number}. " * 3)
    (tmp_path / "task.jsonl").write_text("\n".join(json.dumps(QUESTION) for _ in range(12)))
    (tmp_path / "goals.txt").write_text("\n".join(f"Do bad thing {number}." for number in range(12)))
    small: list[str | Path] = ["--docs", "12", "--max-length", "48", "--new-tokens", "4"]
    asked = ["--task", f"ones={tmp_path / 'task.jsonl'}", "--harmful", f"goals={tmp_path / 'goals.txt'}"]
    return ["audit", model_folder, tuned, "--text", f"mine={texts}", *asked, *small]


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    for fact in ("command", "settings"):
        report.pop(fact)
    return report


@pytest.mark.parametrize("steps_before", [1, 7])
def test_a_killed_audit_goes_on(audit: list[str | Path], tmp_path: Path, steps_before: int) -> None:
    out = tmp_path / "stopped"
    killed = start(*audit, "--out", out)
    deadline = time.monotonic() + 300
    while len(list(out.glob("steps/*.json"))) < steps_before:
        assert killed.poll() is None, finish(killed)
        assert time.monotonic() < deadline
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    finish(killed)
    assert not (out / "report.json").exists()
    kept = {file: file.stat().st_mtime_ns for file in out.glob("steps/*.json")}
    code, said = finish(start(*audit, "--out", out))
    assert code == 0, said
    assert {file: file.stat().st_mtime_ns for file in kept} == kept, "a finished step was done again"
    code, said = finish(start(*audit, "--out", tmp_path / "whole"))
    assert code == 0, said
    assert report_of(out) == report_of(tmp_path / "whole")
    assert {file.name for file in out.iterdir()} == {"report.json", "report.html", "samples", "steps"}
    assert not list(out.glob("steps/.*"))
