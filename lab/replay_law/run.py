"""λ × replay tokens: what replay takes off forgetting, and what it costs in steps.

    python lab/replay_law/run.py                               # all that is missing
    OMP_NUM_THREADS=1 python lab/replay_law/run.py --part 0/2 &     # or two processes of one core each
    OMP_NUM_THREADS=1 python lab/replay_law/run.py --part 1/2
    python lab/replay_law/run.py --size smoke

Writes results.csv, a row a reading, from the readings of all finished cells; compare.py fits the laws to it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from grid import Cell, arguments, finished, read_grid, run_missing, write_csv
from texts import source_of

from keeptune.storage import read_lines
from keeptune.train.settings import TuneSettings
from keeptune.train.tune import tune

HERE = Path(__file__).resolve().parent
COLUMNS = ("P", "N", "lambda", "replay_tokens", "L_ft", "L_f", "L_f_base", "KL", "L_f_on", "objective", "base")


def run_cell(cell: Cell, home: Path, smallest: int) -> dict[str, Any]:
    """One run of `keeptune tune`; without replay the size of the pool means nothing, and one run stands for all."""
    if cell["lambda_"] == 0 and cell["replay_tokens"] != smallest:
        return {"readings": 0}
    settings = TuneSettings(**{**cell, "data": source_of(cell["data"]), "out": str(home / "run")})
    tune(settings, resume=(home / "run").is_dir(), label=home.name)
    return {"readings": len(read_lines(home / "run" / "runs.jsonl"))}


def results(size: str) -> list[dict[str, Any]]:
    """Every reading of every finished cell."""
    rows = []
    for name, kept, home in finished(HERE, size):
        if not kept["readings"]:
            continue
        for reading in read_lines(home / "run" / "runs.jsonl"):
            own = {"run": name, "seed": kept["cell"]["seed"]}
            rows.append({**own, **{column: reading[column] for column in COLUMNS}, "commit": kept["commit"]})
    return rows


def main() -> None:
    given = arguments(__doc__)
    smallest = min(int(cell["replay_tokens"]) for cell in read_grid(HERE, given.size))
    run_missing(HERE, given.size, given.part, lambda cell, home: run_cell(cell, home, smallest))
    if rows := results(given.size):
        write_csv(HERE / ("results.csv" if given.size == "cpu" else f"results_{given.size}.csv"), rows)


if __name__ == "__main__":
    main()
