"""The style of all figures, and files that are the same bytes for the same data: `with style():`, then `save`.

The palette is that of Okabe and Ito, safe for color-blind readers. Markers differ too, for print without color.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl

from keeptune.errors import ConfigError
from keeptune.storage import atomic_file

BLUE, ORANGE, GREEN, PINK, SKY, AMBER, GREY = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#6E6E6E"
)  # fmt: skip
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, AMBER)
MARKS = ("o", "s", "D", "^", "P", "X", "v")
SUFFIXES = (".svg", ".png")
# Inches: one column of a two-column paper, and a page.
COLUMN, PAGE = 3.4, 7.0
_DPI = 200
_SETTINGS: Any = {
    "font.family": "DejaVu Sans", "font.size": 8,
    "axes.titlesize": 8.5, "axes.titlelocation": "left", "axes.labelsize": 8,
    "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 7, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7, "axes.axisbelow": True,
    "axes.grid": True, "grid.color": "#E4E4E4", "grid.linewidth": 0.6,
    "lines.linewidth": 1.4, "lines.markersize": 3.2,
    "figure.facecolor": "white", "figure.constrained_layout.use": True,
    # Without the salt the ids in an SVG are random.
    "svg.fonttype": "path", "svg.hashsalt": "keeptune",
}  # fmt: skip


@contextmanager
def style() -> Iterator[None]:
    """Figures made inside have the style. The settings of the process are restored afterwards."""
    with mpl.rc_context(_SETTINGS):
        yield


def check_suffix(path: Path, others: tuple[str, ...] = ()) -> None:
    """Raise `ConfigError` if the suffix of a figure is not svg, png or one of `others`, before anything is computed."""
    known = (*others, *SUFFIXES)
    if path.suffix not in known:
        raise ConfigError(f"cannot write a figure as {path.name}", f"give --out a name that ends in {', '.join(known)}")


def save(figure: Any, path: Path) -> None:
    """Write a figure made inside `style()`, atomically. The same figure gives the same bytes.

    Raises `ConfigError` if the suffix is neither svg nor png, `StorageError` if the disk is full or not writable.
    """
    check_suffix(path)
    # Without it both formats would record the date and the version of matplotlib.
    metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}
    with atomic_file(path) as unfinished, style():
        figure.savefig(unfinished, format=path.suffix[1:], dpi=_DPI, metadata=metadata)
