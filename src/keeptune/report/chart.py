"""The one chart engine: matplotlib draws, and the drawing stands in the page as SVG without a library or a script.

    def draw(panel: Panel) -> None:
        panel.line(steps, losses, "plain", ORANGE, "o", titles=[...])

    chart("loss", "What it learned", "Lower is better.", "Task loss by step…", draw, x="step", y="nats per token")

Each chart is drawn twice, for a desk and for a phone, and the style sheet shows one. Ink, grid and paper are the page's
own colors (`currentColor`, `var(--line)`), so that dark mode and print follow without a script. A mark's numbers are
its `<title>`, which browsers show beside the pointer; the chart's description and the table below hold the same numbers
for those who cannot point or see. Names from outside are text: mathematics in `$` is off, and the page escapes them.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from keeptune.plot_style import AMBER, BLUE, GREEN, ORANGE, PINK, SKY
from keeptune.report.svg import for_page
from keeptune.report.words import visible

GREY = "#7D858D"  # seen on white and on black
COLOURS = (BLUE, ORANGE, GREEN, PINK, AMBER, SKY, GREY)
MARKS = ("o", "s", "D", "^", "v", "X", "P")
# Stand for colors of the page, which a drawing does not know.
_INK, _MUTED, _LINE, _PAPER = "#010203", "#010204", "#010205", "#fcfdfe"
_OF_PAGE = {_INK: "currentColor", _MUTED: "var(--muted)", _LINE: "var(--line)", _PAPER: "var(--paper)"}
_DESK, _PHONE = 560, 340  # pixels; drawings grow and shrink with the page
_SETTINGS: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "keeptune", "text.parse_math": False, "axes.unicode_minus": True,
    "font.size": 12, "axes.labelsize": 12, "xtick.labelsize": 11.5, "ytick.labelsize": 11.5, "legend.fontsize": 11.5,
    "legend.frameon": False, "legend.handlelength": 1.6, "legend.columnspacing": 1.2,
    "text.color": _INK, "axes.labelcolor": _INK, "xtick.labelcolor": _INK, "ytick.labelcolor": _INK,
    "axes.edgecolor": _MUTED, "xtick.color": _MUTED, "ytick.color": _MUTED, "grid.color": _LINE, "grid.linewidth": 1,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none",
    "figure.constrained_layout.use": True,
}  # fmt: skip
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart with the words around it."""

    name: str
    """Its id in the page."""
    title: str
    sentence: str
    """How to read it, for someone who sees the quantity for the first time."""
    description: str
    """What it shows, for someone who cannot see it."""
    desk: Markup
    phone: Markup
    """The drawing, wide and narrow."""


class Panel:
    """What a chart is drawn with: axes, and marks that tell their numbers."""

    def __init__(self, axes: Axes, *, narrow: bool) -> None:
        self.axes, self.narrow, self.titles = axes, narrow, dict[str, str]()

    def marks(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        titles: Sequence[str],
        color: str,
        mark: str,
        *,
        name: str = "",
        size: float = 7,
        sizes: Sequence[float] = (),
        hollow: bool = False,
        clip: bool = False,
    ) -> None:
        """A mark for each point, which says its title under the pointer; `name` in the legend."""
        look: dict[str, Any] = {"color": color, "marker": mark, "linestyle": "none", "clip_on": clip, "zorder": 3}
        look |= {"markeredgecolor": color, "markerfacecolor": "none" if hollow else color, "markeredgewidth": 1.5}
        for place, (x, y, title) in enumerate(zip(xs, ys, titles, strict=True)):
            (point,) = self.axes.plot([x], [y], markersize=sizes[place] if sizes else size, **look)
            self.tell(point, title)
        if name:
            self.axes.plot([], [], label=label(name), **{**look, "markersize": size})

    def line(
        self, xs: Sequence[float], ys: Sequence[float], color: str, *, dash: str = "-", name: str = "", width: float = 2
    ) -> None:
        """A line without marks."""
        self.axes.plot(xs, ys, color=color, linestyle=dash, linewidth=width, label=label(name) if name else "_")

    def path(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        titles: Sequence[str],
        color: str,
        mark: str,
        name: str,
        *,
        dash: str = "-",
        sizes: Sequence[float] = (),
    ) -> None:
        """A line with a mark for each point, one entry of the legend."""
        self.axes.plot(xs, ys, color=color, linestyle=dash, linewidth=2)
        self.marks(xs, ys, titles, color, mark, sizes=sizes)
        self.axes.plot([], [], color=color, linestyle=dash, linewidth=2, marker=mark, markersize=6, label=label(name))

    def whisker(self, x: Sequence[float], y: Sequence[float], color: str, width: float = 2) -> None:
        """The line of an interval, from one end to the other."""
        self.axes.plot(x, y, color=color, linewidth=width, solid_capstyle="butt", zorder=2)

    def band(self, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], color: str) -> None:
        """What lies between two lines."""
        self.axes.fill_between(xs, lows, highs, color=color, alpha=0.16, linewidth=0)

    def rule(self, *, x: float | None = None, y: float | None = None, name: str = "", dash: str = "--") -> None:
        """A line across the whole panel, with its name beside it."""
        look: dict[str, Any] = {"color": GREY, "linewidth": 1.2, "linestyle": dash, "zorder": 1}
        if x is not None:
            self.axes.axvline(x, **look)
            place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "xy": (x, 0.5), "rotation": 90}
            self._note(name, **place, xytext=(-3, 0), ha="right", va="center")
        elif y is not None:
            self.axes.axhline(y, **look)
            self._note(name, xycoords=("axes fraction", "data"), xy=(1, y), xytext=(0, 3), ha="right", va="bottom")

    def text(self, x: float, y: float, words: str, offset: tuple[float, float], color: str) -> None:
        """A word beside a point, so many pixels to the right and up."""
        sides = ("right", "center", "left"), ("top", "center", "bottom")
        ha, va = (of[1 + (step > 0) - (step < 0)] for of, step in zip(sides, offset, strict=True))
        self.axes.annotate(
            label(words), (x, y), offset, textcoords="offset points", ha=ha, va=va, color=color, weight="bold"
        )

    def rows(self, names: Sequence[str], limit: int = 0) -> None:
        """Name the rows of a chart from the top down."""
        limit = limit or (15 if self.narrow else 26)
        self.axes.set_yticks(range(len(names)), [label(name, limit) for name in names])
        self.axes.set_ylim(len(names) - 0.4, -0.6)
        self.axes.tick_params(axis="y", length=0)
        self.axes.grid(visible=False, axis="y")
        self.axes.grid(visible=True, axis="x")

    def shares(self, axis: str) -> None:
        """An axis in per cent."""
        which = self.axes.xaxis if axis == "x" else self.axes.yaxis
        which.set_major_formatter(PercentFormatter(1.0, symbol="\u202f%"))

    def whole_numbers(self) -> None:
        """No fractions on the axis of x: it counts."""
        self.axes.xaxis.set_major_locator(MaxNLocator(4 if self.narrow else 8, integer=True))

    def tell(self, artist: Any, title: str) -> None:
        """What the pointer says over something drawn."""
        gid = f"t{len(self.titles)}"
        self.titles[gid] = title
        artist.set_gid(gid)

    def _note(self, words: str, **place: Any) -> None:
        if words:
            self.axes.annotate(words, **place, textcoords="offset points", color=_MUTED, fontsize=11)


def chart(
    name: str,
    title: str,
    sentence: str,
    description: str,
    draw: Callable[[Panel], None],
    *,
    x: str,
    y: str,
    height: int = 330,
    row_height: bool = False,
) -> Chart:
    """A chart, drawn.

    Args:
        name: its id in the page, unique there.
        description: what it shows, for someone who cannot see it.
        draw: draws on a panel; called twice.
        x, y: titles of the axes.
        height: pixels on a desk; on a phone a little less, or as much where `row_height` says that it counts rows.
    """
    phone = height if row_height else min(height, 300)
    return Chart(
        name=name,
        title=title,
        sentence=sentence,
        description=label(description, 0),
        desk=_drawn(f"{name}-d", draw, (x, y), (_DESK, height)),
        phone=_drawn(f"{name}-p", draw, (x, y), (_PHONE, phone)),
    )


def label(name: str, limit: int = 24) -> str:
    """A name from outside as text in a chart, on one line; shortened in its middle, unless the limit is 0."""
    name = _NOT_IN_XML.sub("\ufffd", re.sub(r"[ \t\r\n]+", " ", visible(name)))
    return name if not limit or len(name) <= limit else f"{name[: limit // 2]}…{name[-(limit // 2 - 1) :]}"


def _drawn(name: str, draw: Callable[[Panel], None], axes: tuple[str, str], size: tuple[int, int]) -> Markup:
    """One SVG, its ids made unique by `name`."""
    file = io.StringIO()
    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        # A glyph that matplotlib's font lacks is drawn by the browser's; a tight layout is tight.
        warnings.filterwarnings("ignore", module="matplotlib")
        warnings.filterwarnings("ignore", message="Glyph|constrained_layout")
        figure = Figure(figsize=(size[0] / 72, size[1] / 72))
        panel = Panel(figure.subplots(), narrow=size[0] == _PHONE)
        panel.axes.grid(visible=True, axis="y")
        panel.axes.yaxis.set_major_locator(MaxNLocator(6))
        panel.axes.xaxis.set_major_locator(MaxNLocator(4 if panel.narrow else 6))
        draw(panel)
        panel.axes.set(xlabel=label(axes[0], 44 if panel.narrow else 80), ylabel=label(axes[1], 44))
        handles, names = panel.axes.get_legend_handles_labels()
        if len(handles) > 1:
            figure.legend(handles, names, loc="outside upper left", ncols=_columns(names, size[0]))
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    titles = {gid: label(title, 0) for gid, title in panel.titles.items()}
    return for_page(file.getvalue(), name, titles, _OF_PAGE)


def _columns(names: Sequence[str], width: int) -> int:
    """Columns of a legend that fit."""
    return max(1, min(len(names), width // (44 + 7 * max(map(len, names)))))
