"""The page of `keeptune laws plot`: forgetting against task loss with the line, both losses by steps with the law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from keeptune.audit.page.chart import BLUE, GREEN, GREY, ORANGE, Chart, chart_json, figure
from keeptune.audit.page.shell import render
from keeptune.audit.page.table import Column, Table, count, number

# Okabe–Ito; with more P colours and marks come again in other pairs.
_COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#E69F00")
_MARKS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
_TASK = "task loss L_ft, nats per token"
_FORGETTING = "forgetting L_f, nats per token"
_STEPS = "update steps N"


def render_laws(drawing: Mapping[str, Any]) -> str:
    """The page.

    Args:
        drawing: what `keeptune.laws.figures.drawing` gives.
    """
    joint = drawing["joint"]
    return render(
        "laws.html",
        line=drawing["line"],
        why=joint if isinstance(joint, str) else None,
        r2=None if isinstance(joint, str) else joint,
        charts=[
            _against_loss(drawing),
            _along_steps(drawing, "L_ft", "What is learned", _TASK),
            _along_steps(drawing, "L_f", "What is forgotten", _FORGETTING),
        ],
        readings=_readings(drawing["by_P"]),
    )


def _against_loss(drawing: Mapping[str, Any]) -> Chart:
    line = drawing["line"]
    ends = line["L_ft"]
    drawn_line = go.Scatter(x=ends, y=[line["s"] - line["c"] * loss for loss in ends], mode="lines", name="line")
    drawn_line.line = {"color": GREY, "width": 2}
    points = [
        _points(of, place, "L_ft", "loss %{x:.4f}, forgetting %{y:.4f}") for place, of in enumerate(drawing["by_P"])
    ]
    drawn = figure([*points, drawn_line], _TASK, _FORGETTING)
    drawn.update_layout(hovermode="closest")
    return Chart(
        name="line",
        title="What learning costs",
        sentence="Every mark is a reading. Training walks from the right to the left: the steeper the line, the more "
        "is forgotten for what is learned.",
        description=f"Forgetting against task loss; the line is L_f = {-line['c']:.4f}·L_ft + {line['s']:.4f}, "
        f"R² {line['r2']:.3f}.",
        figure=chart_json(drawn),
        height=420,
    )


def _along_steps(drawing: Mapping[str, Any], loss: str, title: str, axis: str) -> Chart:
    traces = []
    for place, of in enumerate(drawing["by_P"]):
        traces.append(_points(of, place, "N", "step %{x}, %{y:.4f}", loss))
        if "fit" in of:
            fit = go.Scatter(x=of["fit"]["N"], y=of["fit"][loss], mode="lines", showlegend=False, hoverinfo="skip")
            traces.append(fit.update(line={"color": _COLOURS[place % len(_COLOURS)], "width": 2}))
    drawn = figure(traces, _STEPS, axis)
    drawn.update_layout(hovermode="closest")
    fitted = not isinstance(drawing["joint"], str)
    first, last = drawing["by_P"][0], drawing["by_P"][-1]
    return Chart(
        name=loss,
        title=title,
        sentence="Marks are readings" + (", curves the joint law." if fitted else "; there is no joint law to draw."),
        description=f"{axis} against update steps, by tuned parameters. "
        f"With P = {first['P']:,.0f} the last reading is {first[loss][-1]:.4f}, "
        f"with P = {last['P']:,.0f} it is {last[loss][-1]:.4f}.",
        figure=chart_json(drawn),
        height=420,
    )


def _points(of: Mapping[str, Any], place: int, x: str, hover: str, y: str = "L_f") -> Any:
    marks = go.Scatter(x=of[x], y=of[y], mode="markers", name=f"P = {of['P']:,.0f}", hovertemplate=hover)
    marks.marker = {"color": _COLOURS[place % len(_COLOURS)], "symbol": _MARKS[place % len(_MARKS)], "size": 7}
    return marks


def _readings(by_P: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        {
            Column("P", unit="tuned parameters"): count(round(of["P"])),
            Column("N", unit="update steps"): count(round(steps)),
            Column("L_ft", unit="nats per token"): number(task),
            Column("L_f", unit="nats per token"): number(forgetting),
        }
        for of in by_P
        for steps, task, forgetting in zip(of["N"], of["L_ft"], of["L_f"], strict=True)
    ]
    return Table.of("readings", "The readings", rows)
