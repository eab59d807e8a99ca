"""Do the laws of forgetting carry over from LoRA to IA³, top layers, attention and all weights? (Kalajdzievski 2024)"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.grid import Cell, Row
from common.small import finetuning


def run_cell(cell: Cell, home: Path) -> dict[str, Any]:
    """One run. Tuning all weights has a single size, so the other sizes have no readings."""
    if cell["method"] == "standard" and cell["size"] != 1:
        return {"readings": []}
    return finetuning.run_cell(cell, home)


def cell_rows(cell: Cell, kept: dict[str, Any], home: Path) -> Iterator[Row]:
    """A row for every reading after the start, with the names that the laws use."""
    for reading in kept["readings"]:
        if reading["step"]:
            yield {
                "tuning": cell["method"],
                "seed": cell["seed"],
                "P": kept["tuned_parameters"],
                "N": reading["step"],
                "L_ft": reading["new_loss"],
                "L_f": reading["l_f"],
                "L_f_base": reading["l_f_base"],
                "old_loss": reading["old_loss"],
                "KL": reading["kl"],
            }
