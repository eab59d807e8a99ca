"""Draw the figures of experiments from their committed rows.

    python lab/figures.py                                       # all of them
    python lab/figures.py toy_continual                         # figure.svg and figure.png of one
    python lab/figures.py toy_continual --rows out/results.csv  # from other rows, into their folder

An experiment's plot.py has `figure(rows)`. Its optional `record(rows)` goes into laws.json beside the committed rows.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from common.grid import LAB
from common.results import results
from keeptune.log import log_to_terminal, logger
from keeptune.plot_style import save, style
from keeptune.storage import write_json


def draw(name: str, table: Path) -> None:
    """Draw the figure of an experiment beside a csv of its rows."""
    plot, rows = import_module(f"{name}.plot"), results(LAB / name, table)
    with style():
        drawn = plot.figure(rows)
    for suffix in ("svg", "png"):
        save(drawn, table.parent / f"{table.stem.replace('results', 'figure')}.{suffix}")
    logger.info(f"{name}: drawn from {table.name}")


def main() -> None:
    names = sorted(table.parent.name for table in LAB.glob("*/results.csv"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME", nargs="?", help="the experiment; by default all with results")
    parser.add_argument("--rows", type=Path, help="a csv of its rows; by default the committed results.csv")
    given = parser.parse_args()
    log_to_terminal()
    if given.rows:
        draw(given.name, given.rows)
        return
    for name in [given.name] if given.name else names:
        draw(name, LAB / name / "results.csv")
        plot = import_module(f"{name}.plot")
        if hasattr(plot, "record"):
            write_json(LAB / name / "laws.json", plot.record(results(LAB / name, LAB / name / "results.csv")))


if __name__ == "__main__":
    main()
