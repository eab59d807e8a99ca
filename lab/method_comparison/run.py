"""Ways to fine-tune and to keep what was known, compared at equal task loss. (Marek et al. 2026, and beyond)

    python lab/method_comparison/run.py                   # the cells that are missing, then results.csv
    python lab/method_comparison/run.py --size smoke      # seconds
    python lab/method_comparison/run.py --size gpu --ray

Writes results.csv: new loss, old loss and KL from the base along each run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from finetuning import rows, run_cell
from grid import Cell, Row, experiment

HERE = Path(__file__).resolve().parent


def cell_rows(cell: Cell, kept: dict[str, Any], home: Path) -> Iterator[Row]:
    """A row for every reading."""
    yield from rows(cell, kept, ("method", "target"))


if __name__ == "__main__":
    experiment(HERE, __doc__, run_cell, cell_rows)
