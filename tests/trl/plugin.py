"""Pytest plugin for TRL's own tests: `trl.SFTTrainer` is keeptune's, with the λ of KEEPTUNE_LAMBDA.

Each outcome is written to the file KEEPTUNE_OUTCOMES as it comes, and a test that stands there is not run again.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.trl.torchvision_cpu import declare_operators

declare_operators()
import trl  # noqa: E402 - it imports torchvision where it can

from keeptune import KeepConfig, KeepSFTTrainer  # noqa: E402

# Tests of another release import private names that are gone; those that need them are skipped or fail in every mode.
_FILES = [ast.parse(file.read_text(encoding="utf-8")) for file in Path("tests_of_trl").glob("*.py")]
for node in (node for file in _FILES for node in ast.walk(file)):
    if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("trl."):
        home = importlib.import_module(str(node.module))
        for name in (alias.name for alias in node.names if not hasattr(home, alias.name)):
            setattr(home, name, (lambda: False) if name.startswith("is_") else None)

if (weight := os.environ.get("KEEPTUNE_LAMBDA")) is not None:
    KEEP = KeepConfig(lambda_=float(weight), replay_tokens=128, replay_length=16, drift_rows=2)

    class SFTTrainer(KeepSFTTrainer):
        """The same class with the settings bound, since TRL's tests give none."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, keep=KEEP, **kwargs)

    trl.SFTTrainer = SFTTrainer

OUTCOMES = Path(os.environ["KEEPTUNE_OUTCOMES"])


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark of TRL's own configuration, which is not read here."""
    config.addinivalue_line("markers", "slow: needs an accelerator or a large model")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what an interrupted run has done."""
    done = {row["test"] for row in read_outcomes(OUTCOMES)}
    items[:] = [item for item in items if name_of(item.nodeid) not in done]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Append the outcome of a test and, where it did not pass, the reason."""
    result: Any = yield
    report = result.get_result()
    if report.when == "call" or (report.when == "setup" and not report.passed):
        outcome = "xfailed" if hasattr(report, "wasxfail") and report.skipped else report.outcome
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = crash.message if crash else report.longrepr[-1] if isinstance(report.longrepr, tuple) else ""
        row = {"test": name_of(item.nodeid), "outcome": outcome, "reason": str(reason)[:1000]}
        with OUTCOMES.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def name_of(node: str) -> str:
    """Class, function and parameters, without the file and the owner of the models."""
    return node.split("::", 1)[-1].replace("trl-internal-testing/", "")


def read_outcomes(file: Path) -> list[dict[str, str]]:
    """A row for each test that has run."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
