"""Grids of experiments: a cell is one run with one setting of everything; finished cells are skipped.

Shared by the experiments of the lab. A grid.toml has a table `settings`, and a table a size (`smoke`, `cpu`, `gpu`)
whose lists are the axes of the grid.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from keeptune.progress import say
from keeptune.storage import write_json, write_text
from keeptune.versions import provenance

Cell = dict[str, Any]


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
    """`--size` and `--part I/N`: of N processes that share a grid, this is the I-th, from 0."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("smoke", "cpu", "gpu"), default="cpu")
    parser.add_argument("--part", default="0/1", help="I/N: run every N-th cell from the I-th on, beside other parts")
    return parser.parse_args()


def run_missing(
    folder: Path, size: str, part: str, run: Callable[[Cell, Path], dict[str, Any]], runs: Path | None = None
) -> None:
    """Run the cells that have no `cell.json` yet; each writes its own, and nothing else, when it is done.

    Args:
        run: does a cell in a folder of its own and returns what `cell.json` keeps of it.
        runs: where the folders of the cells stand, by default `runs/` below the experiment.
    """
    index, count = (int(number) for number in part.split("/"))
    cells = read_grid(folder, size)
    for place, cell in enumerate(cells):
        name = cell_name(folder, size, cell)
        home = (runs or folder / "runs" / size) / name
        if place % count != index or (home / "cell.json").is_file():
            continue
        say(f"cell {place + 1} of {len(cells)}: {name}")
        found = run(cell, home)
        write_json(home / "cell.json", {"cell": cell, **found, **provenance(cell.get("seed", 0))})


def finished(folder: Path, size: str, runs: Path | None = None) -> list[tuple[str, Cell, Path]]:
    """Name, settings and folder of every finished cell, in the order of the grid."""
    found = []
    for cell in read_grid(folder, size):
        name = cell_name(folder, size, cell)
        home = (runs or folder / "runs" / size) / name
        if (home / "cell.json").is_file():
            found.append((name, json.loads((home / "cell.json").read_text(encoding="utf-8")), home))
    return found


def write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
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
