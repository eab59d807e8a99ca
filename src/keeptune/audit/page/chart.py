"""A chart of a page: plotly's data and layout with the words around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

import plotly.graph_objects as go
from markupsafe import Markup

from keeptune.audit.page.words import interval_text, visible

# Okabe–Ito: told apart with any colour vision. Markers and dashes differ too, for greyscale prints.
ORANGE, BLUE, GREEN, GREY = "#D55E00", "#0072B2", "#009E73", "#7D858D"
_MARKS = ((ORANGE, "circle"), (BLUE, "square"), (GREEN, "diamond"), (GREY, "triangle-up"))
_TITLE_SIZE = 13


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
    figure: Markup
    """Data and layout as JSON without `<`, so that it can stand inside a script element: from `chart_json`."""
    height: int | None = None
    """Pixels; without it 350, and 300 on a phone and in print."""


def figure(traces: Sequence[Any], x: str, y: str) -> Any:
    """Without colours of its own but the traces': the page gives the rest, so that they follow light and dark.

    Args:
        x, y: titles of the axes.
    """
    drawn = go.Figure(list(traces))
    drawn.update_layout(
        template="none",
        autosize=True,
        margin={"l": 58, "r": 14, "t": 34, "b": 48},
        dragmode=False,
        hovermode="x unified",
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": "rgba(0,0,0,0)"},
        legend_itemclick=False,
        legend_itemdoubleclick=False,
    )
    axis = {"zeroline": False, "title_font_size": _TITLE_SIZE, "title_standoff": 10}
    drawn.update_xaxes(title_text=x, showgrid=False, showline=True, ticks="outside", **axis)
    drawn.update_xaxes(spikethickness=1, spikedash="solid", spikecolor=GREY)
    drawn.update_yaxes(title_text=y, showgrid=True, nticks=7, **axis)
    return drawn


def chart_json(drawn: Any) -> Markup:
    """A plotly figure as `Chart.figure` wants it."""
    # Inside a script element only `<` can end it; in JSON `<` stands in strings alone, where an escape is the same.
    return Markup(str(drawn.to_json()).replace("<", "\\u003c"))  # noqa: S704 — for the reason above


def label(name: str, limit: int = 24) -> str:
    """A name from outside as text in a chart: plotly reads `<b>` and `<a>` as markup; shortened in its middle."""
    name = visible(name)
    if len(name) > limit:
        name = f"{name[: limit // 2]}…{name[-(limit // 2 - 1) :]}"
    return escape(name, quote=False)


class Point(NamedTuple):
    """A value of a forest plot."""

    name: str
    """Its row."""
    series: str
    """Its colour and mark."""
    given: Mapping[str, Any]
    """Value, low and high."""
    n: str
    """What it is measured on, such as `64 documents`."""


def forest_chart(
    points: Sequence[Point], x: str, form: str, *, shows: str, floors: Mapping[str, float] | None = None, **words: str
) -> Chart:
    """Values with their intervals, a row a name, each series a little below the one before.

    Args:
        x: title of the axis.
        form: a Python format for the numbers; one of shares also gives the axis per cent.
        shows: what stands before the numbers in the chart's description.
        floors: the noise floor by name, drawn from 0.
        words: name, title and sentence of the chart.
    """
    names = list(dict.fromkeys(point.name for point in points))
    series = list(dict.fromkeys(point.series for point in points))
    traces = [_series(points, one, names, series, form) for one in series]
    for trace, (colour, symbol) in zip(traces, _MARKS, strict=False):
        trace.marker, trace.error_x.color = {"color": colour, "symbol": symbol, "size": 10}, colour
    if floors:
        bars = {"color": GREY, "symbol": "line-ns-open", "size": 16, "line": {"width": 3, "color": GREY}}
        floor = go.Scatter(x=[floors[name] for name in names], y=list(range(len(names))), mode="markers", marker=bars)
        floor.name, floor.hovertemplate = "noise floor", "noise floor %{x:.2g}<extra></extra>"
        traces.append(floor)
    drawn = figure(traces, x, "")
    height = 100 + 22 * max(len(points), 2 * len(names))
    drawn.update_layout(hovermode="closest", showlegend=len(traces) > 1, margin_l=10, height=height)
    drawn.update_xaxes(showgrid=True, zeroline=True, zerolinecolor=GREY, zerolinewidth=1, nticks=6)
    if "%" in form:
        drawn.update_xaxes(tickformat=".0%")
    rows_down(drawn, [label(name, 20) for name in names])
    numbers = "; ".join(f"{point.name}, {point.series}: {_numbers(point, form)}" for point in points)
    return Chart(**words, description=f"{shows} {numbers}.", figure=chart_json(drawn), height=height)


def rows_down(drawn: Any, names: Sequence[str]) -> None:
    """Name the rows of a chart from the top down."""
    ticks = {"ticks": "outside", "ticklen": 7, "tickcolor": "rgba(0,0,0,0)"}  # they keep names off the axis
    drawn.update_yaxes(tickvals=list(range(len(names))), ticktext=list(names), showgrid=False, automargin=True, **ticks)
    drawn.update_yaxes(range=[len(names) - 0.4, -0.6])


def error_bar(given: Sequence[Mapping[str, Any]], **style: Any) -> dict[str, Any]:
    """Plotly's bars from low to high; one of no length where an interval is missing."""
    lows, highs = ([of["value"] if of[end] is None else of[end] for of in given] for end in ("low", "high"))
    down = [of["value"] - low for of, low in zip(given, lows, strict=True)]
    up = [high - of["value"] for of, high in zip(given, highs, strict=True)]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, **style}


def _series(points: Sequence[Point], one: str, names: list[str], series: list[str], form: str) -> Any:
    own = [point for point in points if point.series == one]
    shift = 0.5 * (series.index(one) / len(series) - (len(series) - 1) / (2 * len(series)))
    trace = go.Scatter(x=[point.given["value"] for point in own], name=label(one), mode="markers")
    trace.y = [names.index(point.name) + shift for point in own]
    trace.customdata = [f"{label(point.name)}, {label(one)}: {_numbers(point, form)}" for point in own]
    trace.hovertemplate = "%{customdata}<extra></extra>"
    trace.error_x = error_bar([point.given for point in own], thickness=2, width=5)
    return trace


def _numbers(point: Point, form: str) -> str:
    return f"{interval_text(point.given, form)}, {point.n}"
