"""Several audited models of one base in one picture: what each learned against what it forgot.

Reports are taken together only where they measured the same rows. Their intervals are those of each model alone, over
the same documents: two models whose intervals overlap may still differ, but these reports do not show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from keeptune.audit.gate import floor_of
from keeptune.audit.page.compare import compare_page
from keeptune.audit.reports import OF_BASE, Report, read_reports, short_names
from keeptune.audit.verdict import RULES, better, change
from keeptune.errors import ConfigError
from keeptune.storage import write_json, write_text
from keeptune.system import provenance

COMPARISON, PAGE, KIND = "compare.json", "compare.html", "compare"
LEARNED_MEASURE = "ce_change"
TITLES = {
    "kl": "KL(base‖tuned) on {}, nats per token",
    "l_f_rise": "L_f rise on {}, nats per token",
    "ce_change": "CE change on {}, nats per token",
    "agreement": "1 − top-1 agreement on {}",
}
_FORMATS = ("plain", "chat")
# What the base alone decides on a text: the same on the same rows, up to the rounding of another machine.
_OF_BASE_TOLERANCE = 0.01


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What is read from every report, and which way is better."""

    name: str
    """The text or task."""
    measure: str
    """Of a text; for a task `plain` or `chat`, how it was asked."""
    kind: Literal["texts", "tasks"]
    title: str
    higher_is_better: bool


def compare(reports: Sequence[str], *, learned: str, forgot: str = "self:kl", out: Path) -> dict[str, Any]:
    """Put audited models side by side and write `<out>/compare.json` and `compare.html`; returns the content.

    Args:
        reports: each a report.json, or the folder it is in, or `NAME=` one of these.
        learned: the text of the new task, of which the CE change is read, or a task, of which the change of accuracy;
            `TASK:chat` for the questions as a chat turn.
        forgot: `TEXT:MEASURE`, with `kl` where no measure is named.

    Returns:
        `axes`; `points`, each with its place on both and whether it is on the Pareto `front` of the values; `pairs`,
        which of two is better on either axis, see `keeptune.audit.verdict.better`.

    Raises:
        ConfigError: fewer than two reports, names that are not unique, or an axis that they do not have.
        SourceError: no report, a damaged one, one of another kind or base, or one that read other rows.
    """
    if len(reports) < 2:
        raise ConfigError("a comparison needs two reports or more", "name the report.json of every audited model")
    read = read_reports(reports)
    axes = {"learned": _learned_axis(learned, read), "forgot": _forgot_axis(forgot, read)}
    for axis in axes.values():
        _require_same_rows(axis, read)
    places = [{side: _place(axis, report) for side, axis in axes.items()} for report in read]
    signs = {side: -1 if axis.higher_is_better else 1 for side, axis in axes.items()}
    front = pareto_front([[signs[side] * one["value"] for side, one in of.items()] for of in places])
    points = [
        {"name": name, "report": report.path, "tuned": report.content["tuned"], **place, "front": on_front}
        for name, report, place, on_front in zip(_names(read), read, places, front, strict=True)
    ]
    comparison = {
        "kind": KIND,
        "base": read[0].content["base"],
        "axes": {side: asdict(axis) for side, axis in axes.items()},
        "points": points,
        "pairs": [
            {
                "first": one["name"],
                "second": two["name"],
                **{side: better(one[side], two[side], higher=axis.higher_is_better) for side, axis in axes.items()},
            }
            for one, two in combinations(points, 2)
        ],
        "rules": RULES,
        **provenance(0),
    }
    write_json(out / COMPARISON, comparison)
    write_text(out / PAGE, compare_page(comparison))
    return comparison


def pareto_front(costs: Sequence[Sequence[float]]) -> list[bool]:
    """Whether no other point is at least as low on every axis and lower on one."""

    def beats(other: Sequence[float], own: Sequence[float]) -> bool:
        return all(a <= b for a, b in zip(other, own, strict=True)) and tuple(other) != tuple(own)

    return [not any(beats(other, own) for other in costs) for own in costs]


def _learned_axis(given: str, reports: Sequence[Report]) -> Axis:
    name, _, style = given.partition(":")
    first = reports[0].content
    if not style and name in first["texts"]:
        title = TITLES[LEARNED_MEASURE].format(name)
        return Axis(name=name, measure=LEARNED_MEASURE, kind="texts", title=title, higher_is_better=False)
    style = style or _FORMATS[0]
    if name in first.get("tasks", {}) and style in first["tasks"][name]["formats"]:
        title = f"change of accuracy on {name}, asked {'plainly' if style == 'plain' else 'as a chat turn'}"
        return Axis(name=name, measure=style, kind="tasks", title=title, higher_is_better=True)
    raise ConfigError(
        f"--learned {given}: {reports[0].path} has no such text or task",
        f"name one of {', '.join([*first['texts'], *first.get('tasks', {})])}",
    )


def _forgot_axis(given: str, reports: Sequence[Report]) -> Axis:
    name, _, measure = given.partition(":")
    measure = measure or "kl"
    if name not in reports[0].content["texts"] or measure not in TITLES:
        raise ConfigError(
            f"--forgot {given}: {reports[0].path} has no such text, or that is no measure of forgetting",
            f"write TEXT:MEASURE with one of {', '.join(reports[0].content['texts'])} and of {', '.join(TITLES)}",
        )
    title = TITLES[measure].format(name)
    return Axis(name=name, measure=measure, kind="texts", title=title, higher_is_better=False)


def _require_same_rows(axis: Axis, reports: Sequence[Report]) -> None:
    """Compare the rows' number and what the base said on them; of a task, the questions."""
    first, *others = reports
    for other in others:
        if axis.name not in other.content.get(axis.kind, {}):
            raise other.refused(f"did not measure {axis.name}", f"audit that model on {axis.name} too")
        one, two = (report.content[axis.kind][axis.name] for report in (first, other))
        counted = {"texts": ("documents", "tokens"), "tasks": ("asked", "right")}[axis.kind]
        compared = OF_BASE if axis.kind == "texts" else ()
        differences = [abs(one["measures"][name]["value"] - two["measures"][name]["value"]) for name in compared]
        if axis.kind == "tasks" and axis.measure not in two["formats"]:
            raise other.refused(f"did not ask {axis.name} as {axis.measure}", "audit both with the same tokenizer")
        if any(one[key] != two[key] for key in counted) or max(differences, default=0.0) > _OF_BASE_TOLERANCE:
            raise other.refused(
                f"read other rows of {axis.name} than {first.path}",
                "audit both models with the same texts, --docs, --max-length, --windows, --items and --seed",
            )


def _place(axis: Axis, report: Report) -> dict[str, Any]:
    """Value (0 where nothing changed), low, high, number of documents or items, and what rounding alone can give."""
    reading = report.content[axis.kind][axis.name]
    if axis.kind == "tasks":
        result = reading["formats"][axis.measure][reading["headline"]]
        return {**result["change"], "documents": result["items"], "floor": 0.0}
    interval = dict(reading["measures"][axis.measure])
    if interval["low"] is not None:
        interval.update(zip(("value", "low", "high"), change(axis.measure, interval), strict=True))
    elif axis.measure == "agreement":
        interval["value"] = 1 - interval["value"]
    return {**interval, "floor": floor_of(report.content, axis.name, axis.measure)}


def _names(reports: Sequence[Report]) -> list[str]:
    shortened = short_names([report.content["tuned"]["source"] for report in reports])
    names = [report.name or short for report, short in zip(reports, shortened, strict=True)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two models are called {name}", "name the reports: NAME=REPORT")
    return names
