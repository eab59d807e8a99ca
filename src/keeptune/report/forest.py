"""Charts with a row a name: values with their intervals, and shares as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from keeptune.plot_style import BLUE, ORANGE
from keeptune.report.chart import COLOURS, GREY, MARKS, Chart, Panel, chart
from keeptune.report.words import interval_text, shown_number


class Point(NamedTuple):
    """A value of a forest plot."""

    name: str
    """Its row."""
    series: str
    """Its color and mark."""
    given: Mapping[str, Any]
    """Value, low and high."""
    n: str
    """What it is measured on, such as `64 documents`."""


def forest_chart(
    points: Sequence[Point],
    x: str,
    form: str,
    *,
    name: str,
    title: str,
    sentence: str,
    floors: Mapping[str, float] | None = None,
    null: float | None = 0.0,
) -> Chart:
    """Values with their intervals, a row a name, each series a little below the one before.

    Args:
        x: title of the axis.
        form: a Python format for the numbers; one of shares also gives the axis per cent.
        floors: the noise floor by name, a bar around the null.
        null: where nothing has changed.
    """
    names = list(dict.fromkeys(point.name for point in points))
    series = list(dict.fromkeys(point.series for point in points))
    told = [f"{point.name}{', ' * bool(point.series)}{point.series}: {_numbers(point, form)}" for point in points]

    def draw(panel: Panel) -> None:
        if null is not None:
            panel.axes.axvline(null, color=GREY, linewidth=1, zorder=1)
        for row, name in enumerate(names):
            if (floor := (floors or {}).get(name)) and null is not None:
                panel.axes.fill_betweenx([row - 0.4, row + 0.4], null - floor, null + floor, color=GREY, alpha=0.35)
        for place, one in enumerate(series):
            shift = 0.5 * (place / len(series) - (len(series) - 1) / (2 * len(series)))
            own = [(point, text) for point, text in zip(points, told, strict=True) if point.series == one]
            colour, ys = COLOURS[place % len(COLOURS)], [names.index(point.name) + shift for point, _ in own]
            for (point, _), y in zip(own, ys, strict=True):
                if point.given["low"] is not None:
                    panel.whisker([point.given["low"], point.given["high"]], [y, y], colour)
            values = [point.given["value"] for point, _ in own]
            panel.marks(values, ys, [text for _, text in own], colour, MARKS[place % len(MARKS)], name=one, size=8)
        if floors:
            panel.axes.fill_betweenx([], [], [], color=GREY, alpha=0.35, label="noise floor")
        if "%" in form:
            panel.shares("x")
        panel.rows(names)

    rows = max(len(points), 1.6 * len(names)) + (len(series) > 1 or bool(floors))
    shown = f"{title}. {'; '.join(told)}."
    return chart(name, title, sentence, shown, draw, x=x, y="", height=round(76 + 26 * rows), row_height=True)


def bar_chart(
    groups: Mapping[str, Mapping[str, Sequence[float | None]]],
    series: Sequence[str],
    *,
    name: str,
    title: str,
    sentence: str,
) -> Chart:
    """Shares as bars, a row a class with a bar of each series; classes stand in groups with a heading."""
    rows: list[tuple[str, Sequence[float | None]]] = []
    for heading, classes in groups.items():
        rows += [(heading, ()), *classes.items()]
    told = []
    for one, values in rows:
        if values:
            shown = (f"{shown_number(value, '.1%')} {of}" for value, of in zip(values, series, strict=True))
            told.append(f"{one}: {'; '.join(shown)}")

    def draw(panel: Panel) -> None:
        said = iter(told)
        for place, (_, values) in enumerate(rows):
            words = next(said) if values else ""
            for number, value in enumerate(values):
                shift = 0.8 * ((number + 0.5) / len(series) - 0.5)
                colour = (ORANGE, GREY, BLUE)[number]
                (bar,) = panel.axes.barh(
                    [place + shift], [value or 0.0], 0.8 / len(series), color=colour, clip_on=False
                )
                panel.tell(bar, words)
        for number, one in enumerate(series):
            colour = (ORANGE, GREY, BLUE)[number]
            panel.axes.plot([], [], color=colour, marker="s", markersize=9, linestyle="none", label=one)
        panel.rows([one for one, _ in rows])
        for tick, (_, values) in zip(panel.axes.get_yticklabels(), rows, strict=True):
            if not values:
                tick.set_fontweight("bold")
        panel.axes.set_xlim(left=0)
        panel.shares("x")

    about = f"{title}. {'. '.join(told)}."
    return chart(
        name, title, sentence, about, draw, x="share", y="", height=round(90 + 23 * len(rows)), row_height=True
    )


def _numbers(point: Point, form: str) -> str:
    return f"{interval_text(point.given, form)}, {point.n}"
