"""A table of a page, and the same table as CSV: what a reader sees is rounded, what he copies has all digits."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from rich.table import Table as RichTable

from keeptune.report.document import Raw, inert
from keeptune.report.words import shown_ends, shown_number

WIDE = 100
"""Characters of a terminal on which a table is set on one line a row."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell as it is shown, and what the CSV has of it."""

    shown: str
    more: str = ""
    """After the value and fainter, such as its interval."""
    raw: Mapping[str, Raw] = field(default_factory=dict)
    """Value by the suffix of its CSV column: `{"": 0.03}` is `kl`, `{"_low": 0.02}` is `kl_low`."""
    mark: str = ""
    """A class of the style sheet, shown as a spot before it: a model (`base`, `plain`, …) or a kind of verdict."""
    about: str = ""
    """The id of the place in the page that says what it means."""

    def joined(self, between: str = " ") -> str:
        """The cell as plain text."""
        return between.join(part for part in (self.shown, self.more) if part)


@dataclass(frozen=True)
class Column:
    """The head of a column."""

    name: str
    csv: str = ""
    """Its name in the CSV, where that is another."""
    unit: str = ""
    left: bool = False
    """Text: set to the left, and not in figures."""
    about: str = ""
    """The id of the place in the page that says what it means."""
    page_only: bool = False
    """Left out on a terminal."""
    wide_only: bool = False
    """Left out on a terminal of fewer than `WIDE` columns."""

    @property
    def minor(self) -> bool:
        """Whether a phone leaves it out too, so that the verdict is in sight."""
        return self.page_only or self.wide_only


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table with a name and a caption; successive rows with the same first cell are a group that shows it once."""

    name: str
    """Its id in the page."""
    caption: str
    """What it holds, for someone who cannot see it, and over the copied CSV."""
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]

    @classmethod
    def of(cls, name: str, caption: str, rows: Iterable[dict[Column, Cell]]) -> Table:
        """A table from rows of cells by their column; every row has the columns of the first."""
        cells = list(rows)
        columns = list(cells[0]) if cells else []
        return cls(name=name, caption=caption, columns=columns, rows=[list(row.values()) for row in cells])

    @property
    def groups(self) -> list[list[Sequence[Cell]]]:
        """The rows by their first cell."""
        return [list(rows) for _, rows in groupby(self.rows, key=lambda row: row[0])]

    @property
    def csv(self) -> str:
        """Every raw value with all digits, in lines that end in a newline."""
        file, places = io.StringIO(), range(len(self.columns))
        writer = csv.writer(file, lineterminator="\n")
        suffixes = [dict.fromkeys(suffix for row in self.rows for suffix in row[place].raw) for place in places]
        names = [column.csv or column.name for column in self.columns]
        writer.writerow([inert(names[place] + suffix) for place in places for suffix in suffixes[place]])
        for row in self.rows:
            writer.writerow([inert(row[place].raw.get(suffix)) for place in places for suffix in suffixes[place]])
        return file.getvalue()

    def rich(self, width: int = WIDE) -> RichTable:
        """The table for a terminal; successive equal first cells are shown once, with a line between groups.

        A narrow one has intervals below their values, and leaves some columns out.
        """
        between = " " if width >= WIDE else "\n"
        table = RichTable(title=self.caption)
        shown = [
            place
            for place, column in enumerate(self.columns)
            if not column.page_only and (width >= WIDE or not column.wide_only)
        ]
        for at in shown:
            column = self.columns[at]
            head = f"{column.name}\n{column.unit}" if column.unit else column.name
            side: Literal["left", "right"] = "left" if column.left else "right"
            # Numbers stay on one line, whatever the words around them need.
            parts = [part for row in self.rows for part in row[at].joined(between).split("\n")]
            least = None if column.left else max(map(len, parts), default=1)
            table.add_column(head, justify=side, min_width=least, overflow="fold")
        for group in self.groups:
            for place, row in enumerate(group):
                cells = [row[at].joined(between) for at in shown]
                table.add_row(*(["", *cells[1:]] if place else cells))
            table.add_section()
        return table

    def markdown(self, escape: Callable[[str], str]) -> list[str]:
        """The lines of a table in GitHub's Markdown; `escape` makes text stand as it is."""
        lines = [
            " | ".join(escape(column.name) for column in self.columns),
            "|".join("---" if column.left else "---:" for column in self.columns),
        ]
        lines += [" | ".join(escape(cell.joined()) for cell in row) for row in self.rows]
        return [f"| {line} |" for line in lines]


def left(name: str, csv: str = "") -> Column:
    """A column of text."""
    return Column(name, csv, left=True)


def text(shown: str, raw: str | None = None, *, more: str = "", mark: str = "", about: str = "") -> Cell:
    """A cell of text; `raw` is what the CSV has, where that is something else."""
    return Cell(shown=shown, more=more, raw={"": shown if raw is None else raw}, mark=mark, about=about)


def count(value: int) -> Cell:
    """A whole number: 16,321."""
    return Cell(shown=f"{value:,}", raw={"": value})


def number(value: float | None, form: str = ".4f") -> Cell:
    """A number in a Python format; None is a dash."""
    return Cell(shown=shown_number(value, form), raw={"": value})


def p_value(value: float) -> Cell:
    """0.031; below a thousandth that it is."""
    return Cell(shown="< 0.001" if value < 0.001 else f"{value:.3f}", raw={"": value})


def interval(given: Mapping[str, Any], form: str = ".4f", n: int | None = None, unit: str = "") -> Cell:
    """`value [low, high]`, in the CSV four columns: the value, `_low`, `_high` and `_n`.

    Args:
        given: `value`, and `low` and `high` or None, as an audit's report has them; with `documents` or `n` given.
        form: a Python format; a `%` shows shares of 1 as per cent.
        unit: what comes after the value, such as `×`.
    """
    n = given.get("documents") if n is None else n
    raw = {"": given["value"], "_low": given["low"], "_high": given["high"], "_n": n}
    return Cell(shown=shown_number(given["value"], form) + unit, more=shown_ends(given, form), raw=raw)
