"""A chart of a page: plotly's data and layout with the words around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

# Okabe–Ito: told apart with any colour vision. Markers and dashes differ too, for greyscale prints.
ORANGE, BLUE, GREEN, GREY = "#D55E00", "#0072B2", "#009E73", "#7D858D"
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
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
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
    if len(name) > limit:
        name = f"{name[: limit // 2]}…{name[-(limit // 2 - 1) :]}"
    return escape(name, quote=False)
