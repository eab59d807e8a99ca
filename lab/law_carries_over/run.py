"""Do the laws of forgetting carry over from LoRA to IA³, top layers, attention and all weights? (Kalajdzievski 2024)

    python lab/law_carries_over/run.py                   # the cells that are missing, then results.csv
    python lab/law_carries_over/run.py --size smoke      # seconds
    python lab/law_carries_over/run.py --size gpu --ray

Writes results.csv: task loss L_ft and forgetting L_f along each run, to which plot.py fits the laws.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import finetuning
from grid import Cell, Row, experiment

HERE = Path(__file__).resolve().parent


def run_cell(cell: Cell, home: Path) -> dict[str, Any]:
    """One run; all weights have one size, and one run stands for all."""
    if cell["method"] == "standard" and cell["size"] != 1:
        return {"readings": []}
    return finetuning.run_cell(cell, home)


def cell_rows(cell: Cell, kept: dict[str, Any], home: Path) -> Iterator[Row]:
    """A row for every reading after the first step, named as the laws have it."""
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


if __name__ == "__main__":
    experiment(HERE, __doc__, run_cell, cell_rows)
