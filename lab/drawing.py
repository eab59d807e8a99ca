"""What several experiments' figures draw alike; called inside the lab's style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stats import Interval


def whiskers(axis: Any, points: Sequence[tuple[float, Interval | None]], **look: Any) -> None:
    """A line through means with their 95 % intervals; settings without a mean are left out.

    Args:
        points: places on the first axis, and the interval there or None.
        look: of the line and its marks, as for `plot`.
    """
    found = [(place, interval) for place, interval in points if interval is not None]
    if not found:
        return
    places, intervals = zip(*found, strict=True)
    lows = [i.value - i.low if i.low is not None else 0.0 for i in intervals]
    highs = [i.high - i.value if i.high is not None else 0.0 for i in intervals]
    axis.errorbar(places, [i.value for i in intervals], yerr=[lows, highs], elinewidth=0.9, **look)


def note(axis: Any, place: float, height: float, text: str, **look: Any) -> None:
    """A small word beside a point, a little to its right and above unless `offset` says otherwise."""
    offset = look.pop("offset", (4, 3))
    axis.annotate(text, (place, height), xytext=offset, textcoords="offset points", fontsize=6.5, **look)


def logarithmic(axis: Any, *which: str) -> None:
    """Logarithmic axes, "x" or "y" or both, with plain numbers; not where all that is drawn is below 0, as what models
    of a smoke run forget."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415 — claims need no pictures

    for name in which:
        own, end = (axis.xaxis, axis.dataLim.x1) if name == "x" else (axis.yaxis, axis.dataLim.y1)
        if end <= 0:
            continue
        axis.set(**{f"{name}scale": "log"})
        own.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        own.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        own.set_minor_formatter(NullFormatter())


def rate_word(rate: float) -> str:
    """A learning rate as people write it: `1e-3`."""
    return f"{rate:.0e}".replace("e-0", "e-")
