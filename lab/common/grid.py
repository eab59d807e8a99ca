"""The grid of an experiment: its cells, each one run with one value of every setting.

A grid.toml has these tables:

- `[experiment]`: `setting`, its models, texts and training in short, for the tables of claims; `run`, the function that
  runs a cell, as `module:function` (by default `run_cell` of the experiment's
  cells.py); `columns`, the settings that stand first in each row of the csv; `samples`, whether answers of the models
  are kept.
- `[settings]`: what holds at every size.
- `[smoke]`, `[cpu]`, `[gpu]`: what holds at one size. A list is an axis of the grid.
- `of_NAME` in these: settings that a value of the setting NAME brings along, such as `[cpu.of_method.lora]`.
- `reading` in a size: what results are read at, such as the target loss. No run depends on it, and no cell has it.
"""

from __future__ import annotations

import importlib
import itertools
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAB = Path(__file__).resolve().parents[1]
SIZES = ("smoke", "cpu", "gpu")

Cell = dict[str, Any]
Row = dict[str, Any]
RunCell = Callable[[Cell, Path], dict[str, Any]]
"""Runs a cell in a folder of its own, and returns what its cell.json keeps. After a kill it is called again in the same
folder, so that it finds what took minutes."""
CellRows = Callable[[Cell, dict[str, Any], Path], Iterable[Row]]
"""Rows of the csv of a finished cell, from its settings, what cell.json keeps, and its folder."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The grid of an experiment at one size."""

    folder: Path
    """Folder of the experiment."""
    size: str
    run: str
    columns: tuple[str, ...]
    samples: bool
    reading: dict[str, Any]
    cells: dict[str, Cell]
    """Settings of every cell by its name, such as `verilog-lora4-seed0`, in the order of the axes."""

    @classmethod
    def read(cls, folder: Path, size: str) -> Grid:
        """Read one size of `grid.toml` in an experiment's folder."""
        tables = tomllib.loads((folder / "grid.toml").read_text(encoding="utf-8"))
        about, sized = tables.get("experiment", {}), dict(tables[size])
        reading = sized.pop("reading", {})
        fixed = {**tables.get("settings", {}), **sized}
        axes = {key: values for key, values in fixed.items() if isinstance(values, list)}
        named = [key for key in sized if key in axes]
        cells = [{**fixed, **dict(zip(axes, values, strict=True))} for values in itertools.product(*axes.values())]
        return cls(
            folder=folder,
            size=size,
            run=about.get("run", f"{folder.name}.cells:run_cell"),
            columns=tuple(about.get("columns", ())),
            samples=about.get("samples", False),
            reading=reading,
            cells={_name({key: cell[key] for key in named}): settle(cell) for cell in cells},
        )

    @property
    def shared(self) -> dict[str, Any]:
        """The settings that all cells have alike, and those of reading."""
        first, *others = self.cells.values()
        alike = {key: value for key, value in first.items() if all(cell.get(key) == value for cell in others)}
        return {**alike, **self.reading}

    def code(self) -> tuple[RunCell, CellRows]:
        """The function that runs a cell, and the function `cell_rows` of the same module."""
        module, _, function = self.run.partition(":")
        found = importlib.import_module(module)
        return getattr(found, function), found.cell_rows


def settle(cell: Cell) -> Cell:
    """The cell's settings with those that its values bring along, from the tables `of_NAME`, which are left out."""
    for key, tables in list(cell.items()):
        if key.startswith("of_"):
            cell = {**cell, **tables.get(str(cell[key.removeprefix("of_")]), {})}
    return {key: value for key, value in cell.items() if not key.startswith("of_")}


def _name(axes: Cell) -> str:
    parts = [value if isinstance(value, str) else f"{key.strip('_')}{value:g}" for key, value in axes.items()]
    return "-".join(parts).replace("/", "_")
