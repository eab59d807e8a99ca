"""What became of the bounds on forgetting, and of what a short training gets back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from keeptune.audit.gate import BROKEN, HELD
from keeptune.audit.page.table import Cell, Column, Table, interval, text


def gate_table(outcomes: list[dict[str, Any]]) -> Table:
    """The bounds, each with its outcome and the numbers that decided it."""
    columns = [
        Column(name="on", csv="on", left=True),
        Column(name="bound", csv="bound", left=True),
        Column(name="outcome", csv="outcome", left=True),
        Column(name="reason", csv="reason", left=True),
    ]
    marks = {HELD: "unchanged", BROKEN: "changed"}
    rows = [
        [
            text(" ".join([outcome["name"], outcome["part"]]).strip()),
            text(outcome["bound"]),
            text(outcome["status"], mark=marks.get(outcome["status"], "unsure")),
            text(outcome["reason"]),
        ]
        for outcome in outcomes
    ]
    return Table(name="gate", caption="Bounds and what became of them", columns=columns, rows=rows)


def recovery_table(recovery: dict[str, Any]) -> Table:
    """Every measure of a recovery with its interval; parts of a measure get their names joined."""
    columns = [
        Column(name="measure", csv="measure", left=True),
        Column(name="value", csv="value", unit="with its interval"),
    ]
    rows = list(_recovered(recovery["measures"]))
    rows.append([text("share of the drift recovered", "recovered_share"), interval(recovery["recovered_share"])])
    return Table(name="recovery", caption="What a short training gets back", columns=columns, rows=rows)


def _recovered(measures: Mapping[str, Any], before: str = "") -> Iterator[list[Cell]]:
    for name, given in measures.items():
        if "value" in given:
            yield [text(f"{before}{name}".replace("_", " "), f"{before}{name}"), interval(given)]
        else:
            yield from _recovered(given, f"{before}{name} ")
