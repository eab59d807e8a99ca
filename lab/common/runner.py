"""Runs the cells of a grid, each once, and writes the results.

Any number of processes may run the same grid. A cell belongs to the process that holds its lock; a kill releases it.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.grid import Cell, CellRows, Grid, Row, RunCell, settle
from common.results import csv_name, keep
from keeptune.errors import ConfigError
from keeptune.log import duration, logger
from keeptune.storage import atomic_folder, storage_errors, write_json, write_text
from keeptune.system import provenance


def run_missing(grid: Grid, runs: Path, run: RunCell, *, part: str = "0/1", only: str | None = None) -> None:
    """Run the cells that have no cell.json yet. Each writes its own when it is done.

    Args:
        runs: where the folders of the cells are.
        part: `I/N` runs every N-th cell, from the I-th on.
        only: name of the one cell to run.

    Raises:
        ConfigError: no cell is called `only`.
    """
    index, count = (int(number) for number in part.split("/"))
    if only is not None and only not in grid.cells:
        raise ConfigError(f"no cell of the {grid.size} grid is called {only}", f"choose from: {', '.join(grid.cells)}")
    mine = [name for place, name in enumerate(grid.cells) if (place % count == index if only is None else name == only)]
    left = [name for name in mine if not (runs / name / "cell.json").is_file()]
    done, start = 0, time.monotonic()
    for place, name in enumerate(left):
        home, cell = runs / name, grid.cells[name]
        with alone(home) as free:
            if not free:
                logger.info(f"cell {name}: another process is running it")
                continue
            if (home / "cell.json").is_file():
                continue
            seconds = (time.monotonic() - start) / done * (len(left) - place) if done else None
            estimate = "" if seconds is None else f", about {duration(seconds)} left"
            logger.info(f"cell {place + 1} of {len(left)}: {name}{estimate}")
            write_json(home / "cell.json", {"cell": cell, **run(cell, home), **provenance(cell.get("seed", 0))})
            done += 1
    if mine and not left:
        logger.info(f"all {len(mine)} cells of the {grid.size} grid are done")


def missing(grid: Grid, runs: Path) -> list[str]:
    """Names of the cells that have no cell.json yet."""
    return [name for name in grid.cells if not (runs / name / "cell.json").is_file()]


def finished(grid: Grid, runs: Path) -> dict[str, dict[str, Any]]:
    """What cell.json keeps of every finished cell, by name, in the order of the grid."""
    files = {name: runs / name / "cell.json" for name in grid.cells}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.is_file()}


def write_results(grid: Grid, runs: Path, home: Path, rows: CellRows) -> None:
    """Write the rows of all finished cells to the csv in `home`, and beside it the answers of the models, if any."""
    done = finished(grid, runs)
    table: list[Row] = []
    for name, kept in done.items():
        cell: Cell = settle(kept["cell"])
        first = {column: cell[column] for column in grid.columns}
        table += [{**first, **row} for row in rows(cell, kept, runs / name)]
    if not table:
        return
    keep(home / csv_name(grid.size), table, done, whole=len(done) == len(grid.cells))
    if grid.samples:
        cells = [(settle(kept["cell"]), kept) for kept in done.values()]
        answers = [
            {**{key: cell[key] for key in grid.columns}, **said} for cell, kept in cells for said in kept["answers"]
        ]
        lines = [json.dumps(answer, ensure_ascii=False) for answer in answers]
        name = csv_name(grid.size).replace("results", "samples").replace("csv", "jsonl")
        write_text(home / name, "\n".join(lines) + "\n")


@contextmanager
def alone(home: Path, wait: bool = False) -> Iterator[bool]:
    """Hold the folder's lock while the block runs; False if another process holds it. A kill releases it."""
    with storage_errors(home):
        home.mkdir(parents=True, exist_ok=True)
        with (home / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True


def once(folder: Path, make: Callable[[Path], object]) -> Path:
    """A folder that several cells use, such as a pretrained model. The first that needs it makes it, the others wait.

    Args:
        folder: its name must tell everything that it depends on: `home.parent / "shared" / "pretrained-seed0"`.
        make: writes into the folder that it is given, which is then renamed to `folder`.
    """
    if not folder.is_dir():
        with alone(folder.parent / f"{folder.name}.making", wait=True):
            if not folder.is_dir():
                with atomic_folder(folder) as made:
                    make(made)
    return folder
