"""The view of a continual run: the score matrix as a heat map, lines by stage, and every number in a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from keeptune.report.chart import COLOURS, MARKS, Chart, Panel, chart
from keeptune.report.codec import from_json
from keeptune.report.document import Model, SectionRecord
from keeptune.report.finding import Finding, select
from keeptune.report.table import Cell, Column, Table, left, number, text
from keeptune.report.view import View, brief_table, findings_table, value_cell
from keeptune.report.words import interval_text, short_names, shown_number
from keeptune.stats import Interval

Kind = Literal["texts", "tasks"]
_TITLES: dict[Kind, str] = {"texts": "Texts", "tasks": "Tasks"}
_UNITS: dict[Kind, str] = {"texts": "nats per token", "tasks": "share of the items"}
_DASHES = ("-", "--", ":")
_NOTHING = Interval(value=0.0, low=0.0, high=0.0, documents=0)


@dataclass(frozen=True, kw_only=True)
class ColumnAbout:
    """A column of the score matrix."""

    name: str
    kind: Kind
    stage: int | None
    """Which stage was trained on it; None for other knowledge."""
    source: str
    documents: int
    """Or items."""


@dataclass(frozen=True, kw_only=True)
class ContinualDetails:
    """The order of rows and columns."""

    checkpoints: list[Model]
    columns: list[ColumnAbout]


@dataclass(frozen=True, kw_only=True)
class _Matrix:
    """The findings of one kind of column, by stage and column."""

    kind: Kind
    columns: list[ColumnAbout]
    stages: list[str]
    """`base`, `stage 1`, …"""
    findings: Sequence[Finding]

    def of(self, measure: str, column: str, stage: str) -> Finding | None:
        """One of them."""
        return next(iter(select(self.findings, measure=measure, subject=column, part=stage)), None)

    def line(self, measure: str, column: str) -> list[Interval]:
        """From the base, where nothing has changed, to the last stage."""
        found = [self.of(measure, column, stage) for stage in self.stages[1:]]
        return [_NOTHING, *(one.interval for one in found if one)]


def continual_view(record: SectionRecord, findings: Sequence[Finding]) -> View:
    """What there is to see of a continual run."""
    details = from_json(ContinualDetails, record.details)
    stages = ["base", *(f"stage {stage}" for stage in range(1, len(details.checkpoints) + 1))]
    kinds = list(dict.fromkeys(column.kind for column in details.columns))
    matrices = [
        _Matrix(
            kind=kind, columns=[one for one in details.columns if one.kind == kind], stages=stages, findings=findings
        )
        for kind in kinds
    ]
    names = ["the base", *short_names([model.source for model in details.checkpoints])]
    headline = [one for one in findings if one.headline]
    summary = findings_table("continual", "What follows from it", headline)
    brief = brief_table("continual", "What follows from it", headline)
    return View(
        name=record.name,
        title=record.title,
        prose="Every checkpoint was measured on what each stage trained, and on other knowledge, which none did. The "
        "score is −CE in nats per token for a text, the loss with its sign turned, and accuracy for a task: higher is "
        "better. Below each score is its change from the base.",
        tables=[summary],
        template="audit/continual.html",
        content={"parts": [_part(matrix, names) for matrix in matrices]},
        terminal=[*(table for matrix in matrices for table in _terminal(matrix)), brief],
    )


def _part(matrix: _Matrix, names: list[str]) -> dict[str, object]:
    drift = [_chart(matrix, "kl", "How far it drifted", _DRIFT)] if matrix.kind == "texts" else []
    return {
        "title": _TITLES[matrix.kind],
        "columns": matrix.columns,
        "rows": _heat(matrix, names),
        "charts": [_chart(matrix, "score_change", "What each stage changed", _SCORES), *drift],
        "table": _scores(matrix),
    }


_SCORES = (
    "Score after each stage − the base’s: above 0 is better than the base. The large mark is the stage that trained on "
    "it; a fall behind it is forgetting. Bands are 95 % intervals."
)
_DRIFT = (
    "How far the predictions moved from the base’s, for better or worse: 0 is not at all. Bands are 95 % intervals."
)


def _heat(matrix: _Matrix, names: list[str]) -> list[dict[str, object]]:
    """The tint is a sure change's share of the largest in the matrix, −1 … 1; 0 where none is sure."""
    most = max((abs(one.value) for one in select(matrix.findings, measure="score_change")), default=0.0) or 1.0
    rows: list[dict[str, object]] = []
    for number_of, (stage, source) in enumerate(zip(matrix.stages, names, strict=True)):
        cells = []
        for column in matrix.columns:
            score, change = (matrix.of(name, column.name, stage) for name in ("score", "score_change"))
            cells.append(
                {
                    "score": score.value if score else None,
                    "change": change.value if change else None,
                    "tint": change.value / most if change and change.changed else 0.0,
                    "trained": number_of > 0 and column.stage == number_of,
                }
            )
        rows.append({"name": stage, "source": source, "cells": cells})
    return rows


def _scores(matrix: _Matrix) -> Table:
    rows = []
    for column in matrix.columns:
        for stage in matrix.stages:
            score, change, drift = (matrix.of(name, column.name, stage) for name in ("score", "score_change", "kl"))
            row: dict[Column, Cell] = {
                left(matrix.kind.removesuffix("s")): text(column.name),
                left("after"): text(stage),
                Column("score", unit=f"{_UNITS[matrix.kind]}, higher is better"): _cell(score),
                Column("change", unit="score − the base’s"): _cell(change),
                left("verdict"): text(change.words if change else ""),
            }
            if matrix.kind == "texts":
                row[Column("drift", "kl", "KL, nats per token")] = _cell(drift)
            rows.append(row)
    return Table.of(f"{matrix.kind}-table", f"Scores on {matrix.kind} by stage", rows)


def _cell(finding: Finding | None) -> Cell:
    return number(None) if finding is None else value_cell(finding)


def _terminal(matrix: _Matrix) -> list[Table]:
    """R, and the drift of the checkpoints, a row a stage."""
    tables = []
    measures = {"score": f"Score on {matrix.kind}, higher is better"}
    if matrix.kind == "texts":
        measures["kl"] = "Drift: KL(base‖checkpoint), nats per token"
    for measure, caption in measures.items():
        rows = [
            {
                left("after"): text(stage),
                **{
                    Column(one.name, unit=f"stage {one.stage}" if one.stage else "other"): _cell(
                        matrix.of(measure, one.name, stage)
                    )
                    for one in matrix.columns
                },
            }
            for stage in matrix.stages
        ]
        tables.append(Table.of(f"{matrix.kind}-{measure}", caption, rows))
    return tables


def _chart(matrix: _Matrix, measure: str, title: str, sentence: str) -> Chart:
    """Every column's line over the stages; `score_change` or `kl`."""

    def draw(panel: Panel) -> None:
        for place, column in enumerate(matrix.columns):
            colour, values = COLOURS[place % len(COLOURS)], matrix.line(measure, column.name)
            xs = list(range(len(values)))
            lows, highs = ([of.low for of in values], [of.high for of in values])
            if None not in lows and None not in highs:
                panel.band(xs, [low or 0.0 for low in lows], [high or 0.0 for high in highs], colour)
            titles = [
                f"{column.name}, {stage}: {interval_text(of.as_dict())}"
                for stage, of in zip(matrix.stages, values, strict=True)
            ]
            panel.path(
                xs,
                [of.value for of in values],
                titles,
                colour,
                MARKS[place % len(MARKS)],
                column.name,
                dash=_DASHES[place // len(COLOURS) % len(_DASHES)],
                sizes=[11 if stage == column.stage else 6 for stage in xs],
            )
        panel.axes.set_xticks(range(len(matrix.stages)), ["base", *map(str, range(1, len(matrix.stages)))])
        if measure == "kl":
            panel.axes.set_ylim(bottom=0)

    ends = [
        f"{column.name} ends at {shown_number(matrix.line(measure, column.name)[-1].value)}"
        for column in matrix.columns
    ]
    unit = "KL(base‖checkpoint), nats per token" if measure == "kl" else f"score − base’s, {_UNITS[matrix.kind]}"
    about, name = f"{title}, by stage. {'; '.join(ends)}.", f"{matrix.kind}-{measure.replace('_', '-')}"
    return chart(name, title, sentence, about, draw, x="after stage", y=unit)
