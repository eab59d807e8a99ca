"""Old and new loss that a model can have at once: of mixtures, or fine-tuned at several λ. (Marek et al. 2026)

    python lab/capacity_frontier/run.py                   # the cells that are missing, then results.csv
    python lab/capacity_frontier/run.py --size smoke      # seconds
    python lab/capacity_frontier/run.py --size gpu --ray

Writes results.csv: new loss, old loss and KL from the base along each run; a model of a mixture is read untuned.
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
    yield from rows(settled(cell), kept, ("point", "tokens_per_parameter", "mixture", "steps", "lambda_", "target"))


if __name__ == "__main__":
    experiment(HERE, __doc__, run_shared, cell_rows)
