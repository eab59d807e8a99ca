"""Rank × steps: how task loss and forgetting follow from tuned parameters and steps (Kalajdzievski 2024).

A cell is a run of `keeptune tune`, a row of the csv one of its readings.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.chat.tuned import run_cell
from common.grid import Cell, Row
from keeptune.storage import read_lines

__all__ = ["cell_rows", "run_cell"]
_READ = ("P", "N", "L_ft", "L_f", "L_f_base", "KL", "L_f_on", "objective", "lambda", "learning_rate", "seconds", "base")


def cell_rows(cell: Cell, kept: dict[str, Any], home: Path) -> Iterator[Row]:
    """Every reading of the run."""
    for reading in read_lines(home / "run" / "runs.jsonl"):
        about = {"run": home.name, "data": cell["data"], "rank": cell["lora"], "seed": cell["seed"]}
        yield {**about, **{column: reading[column] for column in _READ}}
