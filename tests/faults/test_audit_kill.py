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


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    tmp_path = tmp_path_factory.mktemp("audit")
    for name, seed in (("base", 0), ("tuned", 1)):
        make_model(seed=seed).save_pretrained(tmp_path / name)
        make_tokenizer().save_pretrained(tmp_path / name)
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(12):
        (texts / f"{number}.txt").write_text(f"Document {number} speaks of the number {number}. " * 3)
    (tmp_path / "task.jsonl").write_text("\n".join(json.dumps(QUESTION) for _ in range(12)))
    (tmp_path / "goals.txt").write_text("\n".join(f"Do bad thing {number}." for number in range(12)))
    small: list[str | Path] = ["--docs", "12", "--max-length", "48", "--new-tokens", "4"]
    asked = ["--task", f"ones={tmp_path / 'task.jsonl'}", "--harmful", f"goals={tmp_path / 'goals.txt'}"]
    return ["audit", tmp_path / "base", tmp_path / "tuned", "--text", f"mine={texts}", *asked, *small]


def report_of(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    for fact in ("command", "settings"):
        report.pop(fact)
    return report


@pytest.fixture(scope="module")
def whole(audit: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of an audit that nobody stopped."""
    out = tmp_path_factory.mktemp("whole") / "audit"
    code, said = finish(start(*audit, "--out", out))
    assert code == 0, said
    return report_of(out)


@pytest.mark.parametrize("steps_before", [1, 7])
def test_a_killed_audit_goes_on(
    audit: list[str | Path], whole: dict[str, Any], tmp_path: Path, steps_before: int
) -> None:
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
    assert report_of(out) == whole
    assert {file.name for file in out.iterdir()} == {"report.json", "report.html", "findings.csv", "samples", "steps"}
    assert not list(out.glob("steps/.*"))
