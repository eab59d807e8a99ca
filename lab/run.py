"""Run an experiment of the lab: the cells that are missing, then its results as csv and json.

    python lab/run.py method_comparison                    # the cpu grid, whose results the repository holds
    python lab/run.py method_comparison --size smoke       # seconds, to see that it runs
    python lab/run.py method_comparison --size gpu --ray   # cells side by side on Ray
    python lab/run.py method_comparison --part 1/2         # every second cell, beside another process

The same command resumes a run that was stopped. The experiment's README.md says what is measured, its grid.toml with
which settings.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common.grid import LAB, SIZES, Grid
from common.ray_cells import run_on_ray
from common.runner import missing, run_missing, write_results
from keeptune.errors import KeeptuneError
from keeptune.log import log_to_terminal, logger


def main() -> None:
    given = arguments()
    log_to_terminal()
    grid = Grid.read(LAB / given.name, given.size)
    home = given.out or grid.folder
    runs = home / "runs" / given.size
    try:
        run_cell, cell_rows = grid.code()
        if given.ray:
            run_on_ray(grid, home, missing(grid, runs))
        else:
            run_missing(grid, runs, run_cell, part=given.part, only=given.cell)
        # A single cell leaves the csv to the command that runs them all.
        if not given.cell:
            write_results(grid, runs, home, cell_rows)
    except KeeptuneError as error:
        logger.error(f"lab: {error.what}")
        logger.error(f"  → {error.fix}")
        sys.exit(2)


def arguments() -> argparse.Namespace:
    """The command line."""
    names = sorted(grid.parent.name for grid in LAB.glob("*/grid.toml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME", choices=names, help=f"the experiment: {', '.join(names)}")
    parser.add_argument("--size", choices=SIZES, default="cpu", help="the grid to run; by default cpu")
    parser.add_argument("--part", default="0/1", help="I/N: run every N-th cell from the I-th on, beside other parts")
    parser.add_argument("--cell", help="run the cell with this name only")
    parser.add_argument("--ray", action="store_true", help="run the cells side by side on Ray")
    parser.add_argument("--out", type=Path, help="folder for runs and results; by default the experiment's folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
