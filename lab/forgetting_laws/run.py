"""Rank × steps: how task loss and forgetting follow from tuned parameters and steps (Kalajdzievski 2024).

    python lab/forgetting_laws/run.py                          # all that is missing; about 45 minutes on two cores
    OMP_NUM_THREADS=1 python lab/forgetting_laws/run.py --part 0/2 &     # or two processes of one core each
    OMP_NUM_THREADS=1 python lab/forgetting_laws/run.py --part 1/2
    python lab/forgetting_laws/run.py --size smoke             # a minute

Writes results.csv, a row a reading, from the readings of all finished cells.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from grid import Cell, arguments, finished, run_missing, write_csv
from texts import source_of

from keeptune.storage import read_lines
from keeptune.train.settings import TuneSettings
from keeptune.train.tune import tune

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


def run_cell(cell: Cell, home: Path) -> dict[str, Any]:
    """One run of `keeptune tune` without replay; its folder keeps the readings and loses the adapter."""
    settings = TuneSettings(**{**cell, "data": source_of(cell["data"]), "out": str(home / "run")})
    tune(settings, resume=(home / "run").is_dir(), label=home.name)
    return {"readings": len(read_lines(home / "run" / "runs.jsonl"))}


def results(size: str) -> list[dict[str, Any]]:
    """Every reading of every finished cell."""
    rows = []
    for name, kept, home in finished(HERE, size):
        cell = kept["cell"]
        for reading in read_lines(home / "run" / "runs.jsonl"):
            own = {"run": name, "data": cell["data"], "rank": cell["lora"], "seed": cell["seed"]}
            rows.append({**own, **{column: reading[column] for column in COLUMNS}, "commit": kept["commit"]})
    return rows


def main() -> None:
    given = arguments(__doc__)
    run_missing(HERE, given.size, given.part, run_cell)
    if rows := results(given.size):
        write_csv(HERE / ("results.csv" if given.size == "cpu" else f"results_{given.size}.csv"), rows)


if __name__ == "__main__":
    main()
