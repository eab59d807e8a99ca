"""λ × distinct replay tokens: how much forgetting replay removes, and what it costs in steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.grid import Cell, Row
from common.small import finetuning


def run_cell(cell: Cell, home: Path) -> dict[str, Any]:
    """One run. Without replay the pool does not matter, so only the cell of the smallest pool has readings."""
    if cell["lambda_"] == 0 and cell["pool_rows"] != cell["least_rows"]:
        return {"readings": []}
    method = "kl_self" if cell["lambda_"] else "standard"
    return finetuning.run_cell({**cell, "method": method, "reads_l_f": True, "stop_below": 0.0}, home)


def cell_rows(cell: Cell, kept: dict[str, Any], home: Path) -> Iterator[Row]:
    """A row for every reading after the start, with the names that the laws use."""
    for reading in kept["readings"][1:]:
        yield {
            "run": home.name,
            "seed": cell["seed"],
            "P": kept["tuned_parameters"],
            "N": reading["step"],
            "lambda": cell["lambda_"],
            # The training loop keeps one row of a pool out.
            "replay_tokens": (cell["pool_rows"] - 1) * cell["length"] if cell["lambda_"] else 0,
            "L_ft": reading["new_loss"],
            "L_f": reading["l_f"],
            "L_f_base": reading["l_f_base"],
            "KL": reading["kl"],
        }
