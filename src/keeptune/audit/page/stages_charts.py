"""The charts of a continual run: how every column's score, and the drift on it, moved from stage to stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from keeptune.audit.page.chart import BLUE, GREEN, GREY, ORANGE, Chart, chart_json, figure, label
from keeptune.audit.page.table import shown_number

# The rest of Okabe–Ito that is seen on white and on black.
_COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", GREY)
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "x", "cross")
_DASHES = ("solid", "dash", "dot")
_BAND_OPACITY = 0.16

Cell = dict[str, Any]


def score_chart(kind: str, columns: Sequence[dict[str, Any]], rows: Sequence[Sequence[Cell]], unit: str) -> Chart:
    """Every column's score − the base's, after each stage.

    Args:
        columns: as a report has them, `rows` the cells of R from the base on.
    """
    changes = [[cell["change"] for cell in row] for row in rows]
    return Chart(
        name=f"{kind}-scores",
        title="What each stage changed",
        sentence="Score after each stage − the base’s: above 0 is better than the base. The large mark is the stage "
        "that trained on it; a fall behind it is forgetting. Bands are 95 % intervals.",
        description=f"Change of the score from the base, {unit}, by stage. {_ends(columns, changes)}",
        figure=chart_json(_lines(columns, changes, f"score − base’s, {unit}")),
    )


def drift_chart(columns: Sequence[dict[str, Any]], rows: Sequence[Sequence[Cell]]) -> Chart:
    """KL(base‖checkpoint) on every text, after each stage; `rows` start at stage 1."""
    start = {"value": 0.0, "low": 0.0, "high": 0.0}
    from_base = [[start for _ in columns], *rows]
    drawn = _lines(columns, from_base, "KL(base‖checkpoint), nats per token")
    drawn.update_yaxes(rangemode="tozero")
    return Chart(
        name="drift",
        title="How far it drifted",
        sentence="How far the predictions moved from the base’s, for better or worse: 0 is not at all. Bands are 95 % "
        "intervals.",
        description=f"KL(base‖checkpoint) in nats per token, by stage. {_ends(columns, from_base)}",
        figure=chart_json(drawn),
    )


def _lines(columns: Sequence[dict[str, Any]], rows: Sequence[Sequence[Cell]], y: str) -> Any:
    bands, lines = [], []
    stages = list(range(len(rows)))
    for place, column in enumerate(columns):
        colour = _COLOURS[place % len(_COLOURS)]
        cells = [row[place] for row in rows]
        if cells[-1]["low"] is not None:
            bands.append(_band(stages, cells, colour))
        line = go.Scatter(
            x=stages, y=[cell["value"] for cell in cells], mode="lines+markers", name=label(column["name"])
        )
        line.line = {"color": colour, "width": 2.5, "dash": _DASHES[place // len(_COLOURS) % len(_DASHES)]}
        sizes = [14 if stage == column["stage"] else 7 for stage in stages]
        line.marker = {"symbol": _SYMBOLS[place % len(_SYMBOLS)], "size": sizes, "opacity": 1, "line": {"width": 0}}
        line.hovertemplate = "%{y:.4f}"
        lines.append(line)
    drawn = figure([*bands, *lines], "after stage", y)
    drawn.update_layout(legend_itemsizing="constant")
    names = ["base", *(str(stage) for stage in stages[1:])]
    drawn.update_xaxes(tickmode="array", tickvals=stages, ticktext=names, range=[-0.12, stages[-1] + 0.12])
    return drawn


def _band(stages: list[int], cells: list[Cell], colour: str) -> Any:
    lows, highs = ([cell[end] for cell in cells] for end in ("low", "high"))
    band = go.Scatter(x=[*stages, *reversed(stages)], y=[*highs, *reversed(lows)], fill="toself", mode="lines")
    band.update(line={"width": 0, "color": colour}, opacity=_BAND_OPACITY, fillcolor=colour)
    return band.update(hoverinfo="skip", showlegend=False)


def _ends(columns: Sequence[dict[str, Any]], rows: Sequence[Sequence[Cell]]) -> str:
    ends = [
        f"{column['name']} ends at {shown_number(cell['value'])}"
        for column, cell in zip(columns, rows[-1], strict=True)
    ]
    return "; ".join(ends) + "."
