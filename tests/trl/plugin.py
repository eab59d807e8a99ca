"""Pytest plugin: `trl.SFTTrainer` is keeptune's, with the λ of KEEPTUNE_LAMBDA, before TRL's tests import it."""

from __future__ import annotations

import ast
import importlib
import os
from pathlib import Path
from typing import Any

import trl

from keeptune import KeepConfig, KeepSFTTrainer

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
