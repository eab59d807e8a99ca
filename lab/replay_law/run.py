"""λ × distinct replay tokens: what replay takes off forgetting, and what it costs in steps.

    make lab-replay_law                            # all that is missing; about 15 minutes of one core
    python lab/replay_law/run.py --size smoke      # seconds

Writes results.csv, a row a reading, to which plot.py fits the replay law and simpler rivals.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from finetuning import run_cell
from grid import Cell, Row, experiment

HERE = Path(__file__).resolve().parent


def run_once(cell: Cell, home: Path) -> dict[str, Any]:
    """One run; without replay the size of the pool means nothing, and one run stands for all."""
    if cell["lambda_"] == 0 and cell["pool_rows"] != cell["least_rows"]:
        return {"readings": []}
    method = "kl_self" if cell["lambda_"] else "standard"
    return run_cell({**cell, "method": method, "reads_l_f": True, "stop_below": 0.0}, home)


def cell_rows(cell: Cell, kept: dict[str, Any], home: Path) -> Iterator[Row]:
    """Every reading of the run after its first step."""
    for reading in kept["readings"][1:]:
        yield {
            "run": home.name,
            "seed": cell["seed"],
            "P": kept["tuned_parameters"],
            "N": reading["step"],
            "lambda": cell["lambda_"],
            # The plain loop keeps one row of a pool out.
            "replay_tokens": (cell["pool_rows"] - 1) * cell["length"] if cell["lambda_"] else 0,
            "L_ft": reading["new_loss"],
            "L_f": reading["l_f"],
            "L_f_base": reading["l_f_base"],
            "KL": reading["kl"],
        }


if __name__ == "__main__":
    experiment(HERE, __doc__, run_once, cell_rows)
