"""Runs with a falling rate, for judging forecasts of a run's end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.grid import Cell, Row
from common.small.finetuning import run_cell

__all__ = ["cell_rows", "run_cell"]


def cell_rows(cell: Cell, kept: dict[str, Any], home: Path) -> Iterator[Row]:
    """A row for every reading, with the names that the laws use."""
    base = kept["readings"][0]
    for reading in kept["readings"]:
        yield {
            "P": kept["tuned_parameters"],
            "N": reading["step"],
            "L_ft": reading["new_loss"],
            "L_f": reading["l_f"],
            "L_f_base": base["l_f_base"],
            "KL": reading["kl"],
        }
