"""The base writes its replay text at another temperature than its own: what KL and next-token loss keep then.

    python lab/temperature/run.py                   # the cells that are missing, then results.csv
    python lab/temperature/run.py --size smoke      # seconds
    python lab/temperature/run.py --size gpu --ray

Writes results.csv: new loss, old loss, KL from the base and processor seconds along each run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from finetuning import rows, run_cell, settled
from grid import Cell, Row, experiment

HERE = Path(__file__).resolve().parent
COLUMNS = ("case", "method", "temperature", "replay_rows", "pool_rows", "target")


def cell_rows(cell: Cell, kept: dict[str, Any], home: Path) -> Iterator[Row]:
    """A row for every reading."""
    yield from rows(settled(cell), kept, COLUMNS)


if __name__ == "__main__":
    experiment(HERE, __doc__, run_cell, cell_rows)
