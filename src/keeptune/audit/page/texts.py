"""How far a model drifted on each text: the table, and KL as a chart."""

from __future__ import annotations

from typing import Any

from keeptune.audit.gate import floor_of
from keeptune.audit.page.chart import Chart, Point, chart_json, forest, in_words
from keeptune.audit.page.table import Cell, Column, Table, count, interval, number, text
from keeptune.audit.page.words import TEXTS, UNITS, counted
from keeptune.audit.verdict import DRIFTED, NO_DRIFT, SHOWN

_FORM = ".4f"


def texts_view(report: dict[str, Any]) -> dict[str, Any]:
    """What the template shows of `report["texts"]`: `table` and `chart`."""
    return {"table": _table(report), "chart": _chart(report)}


def verdict_cell(verdict: str) -> Cell:
    """A verdict with its mark, which differs in form and not in colour alone."""
    return text(verdict, mark={DRIFTED: "changed", NO_DRIFT: "unchanged"}.get(verdict, "unsure"))


def _table(report: dict[str, Any]) -> Table:
    columns = [
        Column(name="text", csv="text", left=True),
        Column(name="measure", csv="measure", left=True),
        Column(name="value", csv="value", unit="with its interval"),
        Column(name="noise floor", csv="noise_floor", unit="what rounding alone can do"),
        Column(name="verdict", csv="verdict", left=True),
        Column(name="documents", csv="documents"),
        Column(name="tokens", csv="tokens"),
    ]
    rows = [
        [
            text(name, more=TEXTS.get(name, reading["source"])),
            text(label, measure, more=UNITS[measure]),
            interval(reading["measures"][measure], _FORM),
            number(floor_of(report, name, measure), ".2g"),
            verdict_cell(reading["verdicts"][measure]),
            count(reading["documents"]),
            count(reading["tokens"]),
        ]
        for name, reading in report["texts"].items()
        for measure, label in SHOWN.items()
    ]
    return Table(name="texts", caption="Drift by text and measure", columns=columns, rows=rows)


def _chart(report: dict[str, Any]) -> Chart:
    points = [
        Point(name, "KL", *_ends(reading["measures"]["kl"]), counted(reading["documents"], "document"))
        for name, reading in report["texts"].items()
    ]
    floors = {name: floor_of(report, name, "kl") for name in report["texts"]}
    drawn = forest(points, "KL(base‖tuned), nats per token", form=_FORM, floors=floors)
    return Chart(
        name="texts-kl",
        title="How far the predictions moved",
        sentence="Each mark is the KL on one text, its line the interval. A line that lies wholly right of the upright "
        "grey bar, the noise floor, is drift that rounding cannot explain.",
        description=f"KL in nats per token by text. {in_words(points, _FORM)}",
        figure=chart_json(drawn),
        height=drawn.layout.height,
    )


def _ends(given: dict[str, Any]) -> tuple[float, float | None, float | None]:
    return given["value"], given["low"], given["high"]
