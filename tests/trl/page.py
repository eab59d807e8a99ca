"""docs/trl-tests.json, and the page that people read."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULT, PAGE = ROOT / "docs" / "trl-tests.json", ROOT / "docs" / "trl-tests.md"
_STATES = ("passed", "failed", "skipped", "xfailed", "not run")
_HEAD = """# TRL's own tests

`TRL_TESTS=PATH make trl-tests` runs TRL's own `tests/test_sft_trainer.py`, from a clone that PATH names, with TRL's
trainer and with keeptune's in its place, on a CPU. The models and data sets that the file names are local stand-ins of
the same architectures. Whole result: [trl-tests.json](trl-tests.json).
"""


def write(result: dict[str, Any], modes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Both files; returns the tests that pass plainly and not with keeptune."""
    RESULT.write_text(_rows(result), encoding="utf-8")
    tests: list[dict[str, Any]] = result["tests"]
    lines = [
        _HEAD,
        "| tests | trainer | passed | failed | skipped | expected to fail | not run |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in ("text", "vision"):
        for mode in modes:
            count = Counter(row[mode] for row in tests if kind_of(row["test"]) == kind)
            name = "`SFTTrainer`" if mode == "plain" else f"`KeepSFTTrainer`, {mode}"
            lines.append(f"| {kind} | {name} | {' | '.join(str(count[state]) for state in _STATES)} |")
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    part = f" A part of the tests only: `-k '{result['chosen']}'`." if result["chosen"] else ""
    source = f" The tests are those of TRL {result['tests_of']}." if result["tests_of"] else ""
    lines += ["", f"{result['date']}, {versions}.{source}{part}", ""]
    if any("not run" in row.values() for row in tests):
        lines += [
            "**The run is not finished**: the same command resumes it. What no trainer has reached is not counted.",
            "",
        ]
    same = {"passed", "not run"}
    differences = [row for row in tests if row["plain"] == "passed" and any(row[mode] not in same for mode in modes)]
    lines.append("Tests that pass with TRL's trainer and not with keeptune's:" if differences else "No test differs.")
    lines += [
        f"- `{row['test']}`: λ = 0 {row['λ = 0']}, λ = 1 {row['λ = 1']}. {row['reason'] or 'Unexplained.'}"
        for row in differences
    ]
    lines += ["", "## What does not run or pass with TRL's trainer either", ""]
    lines += ["| tests | outcome | why |", "|---|---|---|"]
    groups: dict[tuple[str, str], list[str]] = {}
    for row in tests:
        if row["plain"] != "passed":
            why = row["reason"] or " ".join(row["why"].split())[:160].removeprefix("Skipped: ")
            groups.setdefault((row["plain"], why), []).append(row["test"])
    for (outcome, why), names in groups.items():
        shown = f"`{names[0]}`" if len(names) == 1 else f"{len(names)} of `{names[0].split('::')[0]}`"
        lines.append(f"| {shown} | {outcome} | {why.replace('|', '/')} |")
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return differences


def kind_of(test: str) -> str:
    """Whether a test is one of images or of a model that reads them."""
    return "vision" if "vlm" in test or "vision" in test or "ForConditionalGeneration" in test else "text"


def _rows(result: dict[str, Any]) -> str:
    """JSON with one test a line, so that a change reads as one."""
    head = json.dumps({key: value for key, value in result.items() if key != "tests"}, indent=1, ensure_ascii=False)
    tests = ",\n  ".join(json.dumps(row, ensure_ascii=False) for row in result["tests"])
    return f'{head[:-2]},\n "tests": [\n  {tests}\n ]\n}}\n'
