"""Tables and sentences on standard output: numbers, never what a model wrote, and no name is taken for markup."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from keeptune.report.table import Table
from keeptune.report.view import View


def print_tables(*parts: Table | str) -> None:
    """Print tables and sentences."""
    console = Console(highlight=False, markup=False, emoji=False)
    for part in parts:
        if isinstance(part, str):
            console.print(part, soft_wrap=True)
        elif part.rows:
            console.print(part.rich(console.width))


def print_views(views: Sequence[View]) -> None:
    """Every section: its tables, and the sentences below them."""
    for view in views:
        print_tables(*(view.tables if view.terminal is None else view.terminal), *(line for line in view.lines if line))
