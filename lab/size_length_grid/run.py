"""The same task for models of several sizes after pretraining of several lengths. (Marek et al. 2026)

    python lab/size_length_grid/run.py                   # the cells that are missing, then results.csv
    python lab/size_length_grid/run.py --size smoke      # seconds
    python lab/size_length_grid/run.py --size gpu --ray

Writes results.csv: new loss, old loss and KL from the base along each run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from finetuning import rows, run_shared, settled
from grid import Cell, Row, experiment

HERE = Path(__file__).resolve().parent


def cell_rows(cell: Cell, kept: dict[str, Any], home: Path) -> Iterator[Row]:
    """A row for every reading."""
    yield from rows(settled(cell), kept, ("width", "tokens_per_parameter", "lambda_", "target"))


if __name__ == "__main__":
    experiment(HERE, __doc__, run_shared, cell_rows)
