"""The report page of a continual run: the score matrix, what follows from it, and the drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keeptune.audit.page.chart import Chart
from keeptune.audit.page.shell import render
from keeptune.audit.page.stages_charts import drift_chart, score_chart
from keeptune.audit.page.table import Cell, Column, Table, interval, number, shown_number, text
from keeptune.audit.stages.matrix import DEFINITIONS, HIGHER, LOWER
from keeptune.audit.stages.table import columns_of, row_names
from keeptune.audit.verdict import NO_DRIFT, NO_EVIDENCE

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


@dataclass(frozen=True, kw_only=True)
class Part:
    """The texts, or the tasks, of a page."""

    title: str
    unit: str
    heads: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    """Of the heat map: `name`, `source` and `cells`, each with `score`, `change`, `tint` and `trained`."""
    charts: list[Chart]
    summary: Table
    scores: Table


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


def _part(report: dict[str, Any], kind: str) -> Part:
    columns, rows = columns_of(report, kind), report["R"][kind]
    charts = [score_chart(kind, columns, rows, _UNITS[kind])]
    if kind == "texts":
        charts.append(drift_chart(columns, report["drift"]["texts"]))
    return Part(
        title=_TITLES[kind],
        unit=_UNITS[kind],
        heads=columns,
        rows=_heat(report, columns, rows),
        charts=charts,
        summary=_summary(report["summary"][kind], kind),
        scores=_scores(report, kind),
    )


def _sentences(summary: dict[str, Any]) -> list[str]:
    """What to take away: of what the stages taught, and of other knowledge."""
    said = []
    for kind, of_kind in summary.items():
        bwt = of_kind["bwt"]
        if bwt:
            said.append(f"On {kind}, {_SAID[bwt['verdict']]} (BWT {shown_number(bwt['value'], '+.3f')}).")
    others = [entry for of_kind in summary.values() for entry in of_kind["other"]]
    fallen = [entry["column"] for entry in others if entry["verdict"] == HIGHER]
    if fallen:
        said.append(f"Other knowledge that was surely lost: {', '.join(fallen)}.")
    elif others:
        said.append("No loss of other knowledge can be told from zero.")
    return said or ["There was one stage, and nothing yet to forget."]


def _heat(
    report: dict[str, Any], columns: list[dict[str, Any]], rows: list[list[dict[str, Any]]]
) -> list[dict[str, Any]]:
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
    columns = [
        Column(name="measure", csv="measure", left=True),
        Column(name="value", csv="value", unit=_UNITS[kind]),
        Column(name="verdict", csv="verdict", left=True),
    ]
    named = [(_NAMES[key], key, summary[key]) for key in _NAMES if summary[key]]
    for entry in summary["chaudhry"]:
        shown = f"forgetting of {entry['column']} since stage {entry['best_stage']}"
        named.append((shown, f"forgetting {entry['column']}", entry))
    for entry in summary["other"]:
        named.append((f"fall of {entry['column']} since the base", f"fall {entry['column']}", entry))
    rows = [[text(shown, raw), interval(entry), text(entry.get("verdict", ""))] for shown, raw, entry in named]
    return Table(name=f"{kind}-summary", caption=f"Continual learning on {kind}", columns=columns, rows=rows)


def _scores(report: dict[str, Any], kind: str) -> Table:
    columns = [
        Column(name=kind.removesuffix("s"), csv=kind.removesuffix("s"), left=True),
        Column(name="after", csv="after", left=True),
        Column(name="score", csv="score", unit=f"{_UNITS[kind]}, higher is better"),
        Column(name="change", csv="change", unit="score − the base’s"),
    ]
    if kind == "texts":
        columns += [
            Column(name="loss", csv="loss", unit="nats per token"),
            Column(name="drift", csv="kl", unit="KL, nats per token"),
        ]
    rows = [
        _score_row(report, kind, place, stage)
        for place in range(len(columns_of(report, kind)))
        for stage in range(len(report["R"][kind]))
    ]
    return Table(name=f"{kind}-table", caption=f"Scores on {kind} by stage", columns=columns, rows=rows)


def _score_row(report: dict[str, Any], kind: str, place: int, stage: int) -> list[Cell]:
    column, cell = columns_of(report, kind)[place], report["R"][kind][stage][place]
    name, source = row_names(report)[stage]
    row = [text(column["name"]), text(name, more=source), interval(cell)]
    row.append(interval(cell["change"]) if stage else number(None))
    if kind == "texts":
        row.append(number(-cell["value"]))
        row.append(interval(report["drift"]["texts"][stage - 1][place]) if stage else number(None))
    return row
