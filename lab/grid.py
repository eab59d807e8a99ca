"""Grids of experiments: a cell is one run with one setting of everything; finished cells are skipped.

Shared by the experiments of the lab. A grid.toml has a table `settings`, and a table a size (`smoke`, `cpu`, `gpu`)
whose lists are the axes of the grid. A run.py hands its two functions to `experiment`:

    if __name__ == "__main__":
        experiment(HERE, __doc__, run_cell, cell_rows)

Any number of processes may run the same grid: a cell belongs to the one that holds its lock, and a kill lets go of it.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import itertools
import json
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keeptune.errors import ConfigError, KeeptuneError
from keeptune.log import duration, say
from keeptune.storage import atomic_folder, storage_errors, write_json, write_text
from keeptune.system import provenance

Cell = dict[str, Any]
Row = dict[str, Any]
SIZES = ("smoke", "cpu", "gpu")


def experiment(
    folder: Path,
    doc: str | None,
    run: Callable[[Cell, Path], dict[str, Any]],
    rows: Callable[[Cell, dict[str, Any], Path], Iterable[Row]],
) -> None:
    """A run.py's main: run the missing cells, then write the rows of all finished ones to a csv, and what each was
    made with to a json beside it.

    Args:
        folder: of the experiment.
        run: does a cell in a folder of its own and returns what `cell.json` keeps of it. Killed, it is called again in
            the same folder; what took minutes it should find there.
        rows: the csv's rows of a finished cell, from its settings, what `cell.json` keeps, and its folder.
    """
    given = arguments(doc)
    home = given.out or folder
    runs = home / "runs" / given.size
    try:
        if given.ray:
            from parallel import run_on_ray  # noqa: PLC0415 — Ray is an extra

            run_on_ray(folder, given.size, home, missing(folder, given.size, runs))
        else:
            run_missing(folder, given.size, given.part, run, runs, given.cell)
        table = [
            row for _, kept, place in finished(folder, given.size, runs) for row in rows(kept["cell"], kept, place)
        ]
        # One cell of many leaves the csv to whoever runs them all.
        if table and not given.cell:
            whole = not missing(folder, given.size, runs)
            keep(home / csv_name(given.size), table, sources(folder, given.size, runs), whole=whole)
    except KeeptuneError as error:
        say(f"lab: {error.what}")
        say(f"  → {error.fix}")
        sys.exit(2)


def keep(path: Path, table: list[Row], made: dict[str, Any], *, whole: bool) -> None:
    """Write the rows and what they were made with: of the whole grid, or of a part of it where no more stand there."""
    if not whole and path.is_file() and len(read_csv(path)) > len(table):
        say(f"{path.name} is kept: it has more rows than the cells that are finished here")
        return
    write_csv(path, table)
    write_json(path.with_suffix(".json"), made)


def csv_name(size: str) -> str:
    """The results of the `cpu` grid are the ones that the repository holds."""
    return "results.csv" if size == "cpu" else f"results_{size}.csv"


def sources(folder: Path, size: str, runs: Path) -> dict[str, Any]:
    """What each finished cell was made with, by the cell's name: settings, command, commit, versions and machine."""
    keys = ("cell", "command", "commit", "seed", "versions", "machine")
    return {name: {key: kept[key] for key in keys} for name, kept, _ in finished(folder, size, runs)}


def read_grid(folder: Path, size: str) -> list[Cell]:
    """The cells of one size, in the order of the axes: each the settings that hold there."""
    grid = tomllib.loads((folder / "grid.toml").read_text(encoding="utf-8"))
    fixed = {**grid.get("settings", {}), **grid[size]}
    axes = {key: values for key, values in fixed.items() if isinstance(values, list)}
    return [{**fixed, **dict(zip(axes, values, strict=True))} for values in itertools.product(*axes.values())]


def cell_name(folder: Path, size: str, cell: Cell) -> str:
    """What tells a cell from the others of its grid, fit for a folder: `verilog-lora4-seed0`."""
    axes = [key for key in read_axes(folder, size) if key in cell]
    parts = [str(cell[key]) if isinstance(cell[key], str) else f"{key.strip('_')}{cell[key]:g}" for key in axes]
    return "-".join(parts).replace("/", "_")


def read_axes(folder: Path, size: str) -> list[str]:
    """Names of the axes of one size."""
    grid = tomllib.loads((folder / "grid.toml").read_text(encoding="utf-8"))
    return [key for key, values in grid[size].items() if isinstance(values, list)]


def arguments(doc: str | None) -> argparse.Namespace:
    """What every run.py understands."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--part", default="0/1", help="I/N: run every N-th cell from the I-th on, beside other parts")
    parser.add_argument("--cell", help="run the cell of this name only")
    parser.add_argument("--ray", action="store_true", help="run the cells side by side on Ray")
    parser.add_argument("--out", type=Path, help="where runs and results go; by default the experiment's folder")
    return parser.parse_args()


def missing(folder: Path, size: str, runs: Path) -> list[str]:
    """Names of the cells that have no `cell.json` yet."""
    names = [cell_name(folder, size, cell) for cell in read_grid(folder, size)]
    return [name for name in names if not (runs / name / "cell.json").is_file()]


def run_missing(
    folder: Path,
    size: str,
    part: str,
    run: Callable[[Cell, Path], dict[str, Any]],
    runs: Path | None = None,
    only: str | None = None,
) -> None:
    """Run the cells that have no `cell.json` yet; each writes its own, and nothing else, when it is done.

    Args:
        run: does a cell in a folder of its own and returns what `cell.json` keeps of it.
        runs: where the folders of the cells stand, by default `runs/` below the experiment.
        only: name of the one cell to run.

    Raises:
        ConfigError: no cell is called `only`.
    """
    index, count = (int(number) for number in part.split("/"))
    runs = runs or folder / "runs" / size
    cells = {cell_name(folder, size, cell): cell for cell in read_grid(folder, size)}
    if only is not None and only not in cells:
        raise ConfigError(f"no cell of the {size} grid is called {only}", f"choose from: {', '.join(cells)}")
    mine = [name for place, name in enumerate(cells) if (place % count == index if only is None else name == only)]
    left = [name for name in mine if not (runs / name / "cell.json").is_file()]
    done, start = 0, time.monotonic()
    for place, name in enumerate(left):
        with alone(runs / name) as free:
            if not free:
                say(f"cell {name}: another process is at it")
                continue
            if (runs / name / "cell.json").is_file():
                continue
            rate = (time.monotonic() - start) / done if done else None
            say(f"cell {place + 1} of {len(left)}: {name}{_left(rate, len(left) - place)}")
            found = run(cells[name], runs / name)
            write_json(
                runs / name / "cell.json", {"cell": cells[name], **found, **provenance(cells[name].get("seed", 0))}
            )
            done += 1
    if mine and not left:
        say(f"all {len(mine)} cells of the {size} grid are done")


def _left(seconds_a_cell: float | None, cells: int) -> str:
    return "" if seconds_a_cell is None else f", about {duration(seconds_a_cell * cells)} left"


@contextmanager
def alone(home: Path, wait: bool = False) -> Iterator[bool]:
    """Whether this process has the folder for itself while the block runs; a kill lets go of it."""
    with storage_errors(home):
        home.mkdir(parents=True, exist_ok=True)
        with (home / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True


def once(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder that several cells use, such as a pretrained model: made by the first that needs it, while others wait.

    Args:
        folder: whose last part names everything that it depends on: `home.parent / "shared" / "pretrained-seed0"`.
        make: writes into the folder it is given, which takes its place when whole.
    """
    if not folder.is_dir():
        with alone(folder.parent / f"{folder.name}.making", wait=True):
            if not folder.is_dir():
                with atomic_folder(folder) as made:
                    make(made)
    return folder


def finished(folder: Path, size: str, runs: Path | None = None) -> list[tuple[str, Cell, Path]]:
    """Name, what `cell.json` keeps and folder of every finished cell, in the order of the grid."""
    found = []
    for cell in read_grid(folder, size):
        name = cell_name(folder, size, cell)
        home = (runs or folder / "runs" / size) / name
        if (home / "cell.json").is_file():
            found.append((name, json.loads((home / "cell.json").read_text(encoding="utf-8")), home))
    return found


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Rows of equal keys as a csv, whole or not at all."""
    rows = list(rows)
    lines: list[str] = []
    writer = csv.DictWriter(_Lines(lines), fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, "".join(lines))


class _Lines:
    """What a csv writer wants of a file."""

    def __init__(self, lines: list[str]) -> None:
        self.write = lines.append


def read_csv(path: Path) -> list[Row]:
    """The rows of a csv, numbers as numbers and what was left empty as None."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: _value(text) for key, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> int | float | str | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text or None


def draw(folder: Path, figure: Callable[[list[Row]], Any]) -> None:
    """A plot.py's main: figure.svg and figure.png from results.csv alone, or from the csv named on the command line.

    Args:
        figure: the matplotlib figure of the csv's rows; it is called inside the lab's style.
    """
    from keeptune.plot_style import save, style  # noqa: PLC0415 — runs need no pictures

    parser = argparse.ArgumentParser(description=f"Draw {folder.name} from its results.")
    parser.add_argument("csv", type=Path, nargs="?", default=folder / "results.csv")
    table = parser.parse_args().csv
    with style():
        drawn = figure(read_csv(table))
    for suffix in ("svg", "png"):
        save(drawn, table.parent / f"{table.stem.replace('results', 'figure')}.{suffix}")
