"""Results of an experiment: results.csv holds the rows for figures, tables and claims, results.json what each cell was
made with."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.grid import Cell, Grid, Row
from keeptune.log import logger
from keeptune.storage import write_json, write_text

_PROVENANCE = ("cell", "command", "commit", "seed", "versions", "machine")


def csv_name(size: str) -> str:
    """Name of the csv of a size. The repository holds the results of the `cpu` grid."""
    return "results.csv" if size == "cpu" else f"results_{size}.csv"


def results(folder: Path, table: Path) -> list[Row]:
    """The rows of a csv of the experiment, each with the settings that all cells of the grid share.

    What results are read at, such as the target loss, is taken from the grid as it is now, not from the rows.

    Args:
        table: a file whose name `csv_name` gave, which tells the size.
    """
    shared = Grid.read(folder, table.stem.removeprefix("results").strip("_") or "cpu")
    return [{**shared.shared, **row, **shared.reading} for row in read_csv(table)]


def keep(path: Path, table: list[Row], done: dict[str, dict[str, Any]], *, whole: bool) -> None:
    """Write the rows, and what each finished cell was made with to a json beside them.

    Args:
        done: what cell.json keeps, by the cell's name.
        whole: whether all cells are finished; rows of a part do not replace a longer csv.
    """
    if not whole and path.is_file() and len(read_csv(path)) > len(table):
        logger.info(f"{path.name} is kept: it has more rows than the cells that are finished here")
        return
    write_csv(path, table)
    made: dict[str, Cell] = {name: {key: kept[key] for key in _PROVENANCE} for name, kept in done.items()}
    write_json(path.with_suffix(".json"), made)


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write rows with equal keys as a csv, whole or not at all."""
    rows = list(rows)
    lines: list[str] = []
    writer = csv.DictWriter(_Lines(lines), fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, "".join(lines))


class _Lines:
    """The part of a file that a csv writer uses."""

    def __init__(self, lines: list[str]) -> None:
        self.write = lines.append


def read_csv(path: Path) -> list[Row]:
    """The rows of a csv, with numbers as numbers and empty fields as None."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: _value(text) for key, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> int | float | str | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text or None
