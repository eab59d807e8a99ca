"""Rank × steps: how task loss and forgetting follow from tuned parameters and steps (Kalajdzievski 2024).

    make lab-forgetting_laws                       # all that is missing; about 50 minutes on two cores
    OMP_NUM_THREADS=1 python lab/forgetting_laws/run.py &      # or two processes of one core each
    OMP_NUM_THREADS=1 python lab/forgetting_laws/run.py
    python lab/forgetting_laws/run.py --size smoke             # seconds

Writes results.csv, a row a reading.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from grid import Cell, Row, experiment
from tuned import readings, run_cell

HERE = Path(__file__).resolve().parent
COLUMNS = (
    "P",
    "N",
    "L_ft",
    "L_f",
    "L_f_base",
    "KL",
    "L_f_on",
    "objective",
    "lambda",
    "learning_rate",
    "seconds",
    "base",
)


def cell_rows(cell: Cell, kept: dict[str, Any], home: Path) -> Iterator[Row]:
    """Every reading of the run."""
    return readings(home, COLUMNS, run=home.name, data=cell["data"], rank=cell["lora"], seed=cell["seed"])


if __name__ == "__main__":
    experiment(HERE, __doc__, run_cell, cell_rows)
