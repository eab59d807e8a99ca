"""λ × distinct replay tokens: what replay takes off forgetting, and what it costs in steps.

    make lab-replay_law                            # all that is missing; about 30 minutes on two cores
    python lab/replay_law/run.py --size smoke      # seconds

Writes results.csv, a row a reading, to which plot.py fits the replay law and simpler rivals.
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
COLUMNS = ("P", "N", "lambda", "replay_tokens", "L_ft", "L_f", "L_f_base", "KL", "L_f_on", "objective", "base")


def run_once(cell: Cell, home: Path) -> dict[str, Any]:
    """One run; without replay the size of the pool means nothing, and one run stands for all."""
    if cell["lambda_"] == 0 and cell["replay_tokens"] != cell["least_tokens"]:
        return {"readings": 0}
    return run_cell(cell, home)


def cell_rows(cell: Cell, kept: dict[str, Any], home: Path) -> Iterator[Row]:
    """Every reading of the run."""
    if kept["readings"]:
        yield from readings(home, COLUMNS, run=home.name, seed=cell["seed"])


if __name__ == "__main__":
    experiment(HERE, __doc__, run_once, cell_rows)
