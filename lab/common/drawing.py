"""What the figures of several experiments draw alike. Called inside `keeptune.plot_style.style()`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from common.stats import Interval
from keeptune.plot_style import PAGE


def panels(height: float, columns: int = 2, lines: int = 1, **how: Any) -> tuple[Any, Any]:
    """A figure as wide as a page, and its axes; `height` in inches, `how` as for `plt.subplots`."""
    return plt.subplots(lines, columns, figsize=(PAGE, height), **how)


def legend_below(figure: Any, axis: Any, **look: Any) -> None:
    """The legend of one axis, below the whole figure."""
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", **look)


def whiskers(axis: Any, points: Sequence[tuple[float, Interval | None]], **look: Any) -> None:
    """A line through means with their 95 % intervals. Points without an interval are left out.

    Args:
        points: positions on the first axis, and the interval there or None.
        look: of the line and its marks, as for `plot`.
    """
    present = [(place, interval) for place, interval in points if interval is not None]
    if present:
        places, intervals = zip(*present, strict=True)
        axis.errorbar(places, [i.value for i in intervals], yerr=errors(*intervals), elinewidth=0.9, **look)


def errors(*intervals: Interval) -> list[list[float]]:
    """Distances of the ends from the values, below and above, as `errorbar` takes them."""
    lows = [i.value - i.low if i.low is not None else 0.0 for i in intervals]
    highs = [i.high - i.value if i.high is not None else 0.0 for i in intervals]
    return [lows, highs]


def bars(axis: Any, points: Sequence[tuple[float, Interval | None]], colour: str) -> None:
    """Vertical 95 % intervals without caps."""
    for place, interval in points:
        if interval is not None and interval.low is not None:
            axis.plot([place, place], [interval.low, interval.high], color=colour, linewidth=1.2)


def note(axis: Any, place: float, height: float, text: str, **look: Any) -> None:
    """A label beside a point, slightly above and to the right unless `offset` says otherwise."""
    offset = look.pop("offset", (4, 3))
    axis.annotate(text, (place, height), xytext=offset, textcoords="offset points", fontsize=6.5, **look)


def absent(axis: Any, place: float, text: str, height: float = 0.03, **look: Any) -> None:
    """A label where a point is missing, at a share of the axis's height."""
    axis.annotate(text, (place, height), xycoords=("data", "axes fraction"), ha="center", fontsize=6.5, **look)


def logarithmic(axis: Any, *which: str) -> None:
    """Logarithmic axes, "x" or "y" or both, with plain numbers. An axis without positive values stays linear: models of
    a smoke run may forget less than 0."""
    for name in which:
        own, end = (axis.xaxis, axis.dataLim.x1) if name == "x" else (axis.yaxis, axis.dataLim.y1)
        if end <= 0:
            continue
        axis.set(**{f"{name}scale": "log"})
        own.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        own.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        own.set_minor_formatter(NullFormatter())


def log_places(axis: Any, places: Sequence[float], names: Sequence[str] | None = None) -> None:
    """A logarithmic first axis with ticks at these places only, named by their values unless `names` are given."""
    axis.set_xscale("log")
    axis.set_xticks(places, names or [f"{place:g}" for place in places])
    axis.minorticks_off()


def format_rate(rate: float) -> str:
    """A learning rate as people write it: `1e-3`."""
    return f"{rate:.0e}".replace("e-0", "e-")
