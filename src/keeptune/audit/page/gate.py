"""What became of the bounds on forgetting, and of what brief tuning brings back."""

from __future__ import annotations

from typing import Any

from keeptune.audit.gate import BROKEN, HELD
from keeptune.audit.page.table import Cell, Column, Table, count, interval, number, text


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
    """Every measure of a recovery with its interval."""
    columns = [
        Column(name="measure", csv="measure", left=True),
        Column(name="value", csv="value", unit="nats per token; a share of the gap"),
        Column(name="documents", csv="documents"),
    ]
    measures = {**recovery["measures"], "recovered_share": recovery["recovered_share"]}
    rows = [
        [
            text(name.replace("_", " "), name),
            _recovered(name, given),
            count(recovery["documents"]),
        ]
        for name, given in measures.items()
    ]
    return Table(name="recovery", caption="What brief tuning brings back", columns=columns, rows=rows)


def _recovered(name: str, given: dict[str, Any] | None) -> Cell:
    if given is None:
        return number(None)
    return interval(given, ".1%" if name == "recovered_share" else ".4f")
