"""The report page of a continual run: the score matrix, what follows from it, and the drift."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from keeptune.audit.page.chart import BLUE, GREEN, GREY, ORANGE, Chart, chart_json, figure, label
from keeptune.audit.page.shell import render
from keeptune.audit.page.table import Cell, Column, Table, interval, left, number, text
from keeptune.audit.page.words import shown_number
from keeptune.audit.reports import columns_of, row_names
from keeptune.audit.stages.matrix import DEFINITIONS, HIGHER, LOWER
from keeptune.audit.verdict import NO_DRIFT, NO_EVIDENCE

Entry = dict[str, Any]
Rows = list[list[Entry]]

_UNITS = {"texts": "nats per token", "tasks": "share of the items"}
_TITLES = {"texts": "Texts", "tasks": "Tasks"}
_SAID = {
    LOWER: "later stages took away from what earlier ones taught",
    HIGHER: "later stages added to what earlier ones taught",
    NO_DRIFT: "what later stages did to what earlier ones taught is not distinguishable from zero",
    NO_EVIDENCE: "there is not enough evidence to say what later stages did to what earlier ones taught",
}
_NAMES = {
    "acc": "ACC, the mean score at the end",
    "bwt": "BWT, what later stages changed",
    "fwt": "FWT, what earlier stages gave in advance",
}
# The rest of Okabe–Ito that is seen on white and on black.
_COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", GREY)
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "x", "cross")
_DASHES = ("solid", "dash", "dot")
_BAND_OPACITY = 0.16


def stages_page(report: dict[str, Any]) -> str:
    """The page of a continual run.

    Args:
        report: as `keeptune.audit.stages.run.audit_stages` gives it. Nothing in it is trusted.

    Returns:
        The HTML, about 5 MB.

    Raises:
        KeyError: a part of the report is missing.
    """
    return render(
        "stages.html",
        report=report,
        sentences=_sentences(report["summary"]),
        stages=len(report["checkpoints"]),
        parts=[_part(report, kind) for kind in report["R"]],
        definitions=DEFINITIONS,
    )


def _part(report: Entry, kind: str) -> Entry:
    """What the template shows of the texts, or of the tasks; `rows` are those of the heat map."""
    columns, rows = columns_of(report, kind), report["R"][kind]
    drift = [_drift_chart(columns, report["drift"]["texts"])] if kind == "texts" else []
    return {
        "title": _TITLES[kind],
        "unit": _UNITS[kind],
        "heads": columns,
        "rows": _heat(report, columns, rows),
        "charts": [_score_chart(kind, columns, rows), *drift],
        "summary": _summary(report["summary"][kind], kind),
        "scores": _scores(report, kind),
    }


def _sentences(summary: dict[str, Any]) -> list[str]:
    """What to take away: of what the stages taught, and of other knowledge."""
    said = [
        f"On {kind}, {_SAID[bwt['verdict']]} (BWT {shown_number(bwt['value'], '+.3f')})."
        for kind, of_kind in summary.items()
        if (bwt := of_kind["bwt"])
    ]
    others = [entry for of_kind in summary.values() for entry in of_kind["other"]]
    fallen = [entry["column"] for entry in others if entry["verdict"] == HIGHER]
    if fallen:
        said.append(f"Other knowledge that was surely lost: {', '.join(fallen)}.")
    elif others:
        said.append("No loss of other knowledge can be told from zero.")
    return said or ["There was one stage, and nothing yet to forget."]


def _heat(report: dict[str, Any], columns: list[Entry], rows: Rows) -> list[Entry]:
    """The tint is a sure change's share of the largest in the matrix, −1 … 1; 0 where none is sure."""
    most = max(abs(cell["change"]["value"]) for row in rows for cell in row) or 1.0
    return [
        {
            "name": name,
            "source": source,
            "cells": [
                {
                    "score": cell["value"],
                    "change": cell["change"]["value"] if stage else None,
                    "tint": cell["change"]["value"] / most if cell["change"]["verdict"] in (HIGHER, LOWER) else 0.0,
                    "trained": stage > 0 and column["stage"] == stage,
                }
                for column, cell in zip(columns, row, strict=True)
            ],
        }
        for stage, ((name, source), row) in enumerate(zip(row_names(report), rows, strict=True))
    ]


def _summary(summary: dict[str, Any], kind: str) -> Table:
    named = [(_NAMES[key], key, summary[key]) for key in _NAMES if summary[key]]
    for entry in summary["chaudhry"]:
        shown = f"forgetting of {entry['column']} since stage {entry['best_stage']}"
        named.append((shown, f"forgetting {entry['column']}", entry))
    for entry in summary["other"]:
        named.append((f"fall of {entry['column']} since the base", f"fall {entry['column']}", entry))
    rows = [
        {
            left("measure"): text(shown, raw),
            Column("value", unit=_UNITS[kind]): interval(entry),
            left("verdict"): text(entry.get("verdict", "")),
        }
        for shown, raw, entry in named
    ]
    return Table.of(f"{kind}-summary", f"Continual learning on {kind}", rows)


def _scores(report: dict[str, Any], kind: str) -> Table:
    rows: list[dict[Column, Cell]] = []
    for place, column in enumerate(columns_of(report, kind)):
        for stage, ((name, source), scores) in enumerate(zip(row_names(report), report["R"][kind], strict=True)):
            cell = scores[place]
            row = {
                left(kind.removesuffix("s")): text(column["name"]),
                left("after"): text(name, more=source),
                Column("score", unit=f"{_UNITS[kind]}, higher is better"): interval(cell),
                Column("change", unit="score − the base’s"): interval(cell["change"]) if stage else number(None),
            }
            if kind == "texts":
                drift = interval(report["drift"]["texts"][stage - 1][place]) if stage else number(None)
                row[Column("loss", unit="nats per token")] = number(-cell["value"])
                row[Column("drift", "kl", "KL, nats per token")] = drift
            rows.append(row)
    return Table.of(f"{kind}-table", f"Scores on {kind} by stage", rows)


def _score_chart(kind: str, columns: list[Entry], rows: Rows) -> Chart:
    """Every column's score − the base's, after each stage; `rows` are the cells of R from the base on."""
    unit = _UNITS[kind]
    changes = [[cell["change"] for cell in row] for row in rows]
    return Chart(
        name=f"{kind}-scores",
        title="What each stage changed",
        sentence="Score after each stage − the base’s: above 0 is better than the base. The large mark is the stage "
        "that trained on it; a fall behind it is forgetting. Bands are 95 % intervals.",
        description=f"Change of the score from the base, {unit}, by stage. {_ends(columns, changes)}",
        figure=chart_json(_lines(columns, changes, f"score − base’s, {unit}")),
    )


def _drift_chart(columns: list[Entry], rows: Rows) -> Chart:
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


def _lines(columns: list[Entry], rows: Rows, y: str) -> Any:
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


def _band(stages: list[int], cells: list[Entry], colour: str) -> Any:
    lows, highs = ([cell[end] for cell in cells] for end in ("low", "high"))
    band = go.Scatter(x=[*stages, *reversed(stages)], y=[*highs, *reversed(lows)], fill="toself", mode="lines")
    band.update(line={"width": 0, "color": colour}, opacity=_BAND_OPACITY, fillcolor=colour)
    return band.update(hoverinfo="skip", showlegend=False)


def _ends(columns: list[Entry], rows: Rows) -> str:
    ends = [
        f"{column['name']} ends at {shown_number(cell['value'])}"
        for column, cell in zip(columns, rows[-1], strict=True)
    ]
    return "; ".join(ends) + "."
