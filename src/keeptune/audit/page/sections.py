"""The sections of an audit's page made of tables and charts: texts, tasks, lm-eval, refusals, recovery, the gate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from keeptune.audit.gate import BROKEN, HELD, floor_of
from keeptune.audit.page.chart import Point, forest_chart
from keeptune.audit.page.table import Cell, Column, Table, count, interval, left, number, p_value, text
from keeptune.audit.page.words import FORMATS, TEXTS, UNITS, counted, interval_text
from keeptune.audit.safety.detectors import LESS, MORE, NO_CHANGE
from keeptune.audit.verdict import DRIFTED, NO_DRIFT, SHOWN

FELL, ROSE = "fell", "rose"
ANSWERS_SHOWN = 40
CHARACTERS_SHOWN = 1500
_SHARE, _CHANGE = ".1%", "+.1%"
# They differ in form and not in colour alone.
_MARKS = {
    **dict.fromkeys((DRIFTED, FELL, ROSE, LESS, MORE, BROKEN), "changed"),
    **dict.fromkeys((NO_DRIFT, NO_CHANGE, HELD), "unchanged"),
}
_TRANSITIONS = {
    "refused_refused": Column("both refuse", "refused_refused"),
    "refused_answered": Column("base refuses", "refused_answered", "tuned answers"),
    "answered_refused": Column("base answers", "answered_refused", "tuned refuses"),
    "answered_answered": Column("both answer", "answered_answered"),
}
_CHANGED, _P = Column("change", unit="tuned − base"), Column("p", "mcnemar_p", "McNemar, exact")
_LOST, _GAINED = (
    Column("lost", "right_to_wrong", "items right→wrong"),
    Column("gained", "wrong_to_right", "items wrong→right"),
)


def verdict_cell(verdict: str) -> Cell:
    """A verdict, or what became of a bound, with its mark."""
    return text(verdict, mark=_MARKS.get(verdict, "unsure"))


def texts_view(report: dict[str, Any]) -> dict[str, Any]:
    """What the template shows of `report["texts"]`: `table` and `chart`."""
    texts = report["texts"]
    rows = [
        {
            left("text"): text(name, more=TEXTS.get(name, reading["source"])),
            left("measure"): text(label, key, more=UNITS[key]),
            Column("value", unit="with its interval"): interval(reading["measures"][key]),
            Column("noise floor", "noise_floor", "what rounding alone can do"): number(
                floor_of(report, name, key), ".2g"
            ),
            left("verdict"): verdict_cell(reading["verdicts"][key]),
            Column("documents"): count(reading["documents"]),
            Column("tokens"): count(reading["tokens"]),
        }
        for name, reading in texts.items()
        for key, label in SHOWN.items()
    ]
    chart = forest_chart(
        [Point(name, "KL", of["measures"]["kl"], counted(of["documents"], "document")) for name, of in texts.items()],
        "KL(base‖tuned), nats per token",
        ".4f",
        floors={name: floor_of(report, name, "kl") for name in texts},
        name="texts-kl",
        title="How far the predictions moved",
        sentence="Each mark is the KL on one text, its line the interval. A line that lies wholly right of the upright "
        "grey bar, the noise floor, is drift that rounding cannot explain.",
        shows="KL in nats per token by text.",
    )
    return {"table": Table.of("texts", "Drift by text and measure", rows), "chart": chart}


def tasks_view(tasks: dict[str, Any]) -> dict[str, Any]:
    """What the template shows of `report["tasks"]`: `table`, `chart`, and other scorings."""
    rows = [_task_row(name, style, result) for name, style, result in headline_results(tasks)]
    others = [
        {**_task_row(name, style, result), left("scored by", "scoring"): text(way)}
        for name, task in tasks.items()
        for style, ways in task["formats"].items()
        for way, result in ways.items()
        if way not in ("left_out", task["headline"])
    ]
    chart = forest_chart(
        [
            Point(name, FORMATS.get(style, style), result["change"], counted(result["items"], "item"))
            for name, style, result in headline_results(tasks)
        ],
        "change of accuracy, per cent of the items",
        _CHANGE,
        name="tasks-change",
        title="How accuracy changed",
        sentence="Left of 0 the tuned model answers fewer items right than its base, right of 0 more; a line that "
        "crosses 0 is a change that chance could have made.",
        shows="Change of accuracy by task and format.",
    )
    table = Table.of("tasks", "Answers by task", rows)
    return {"table": table, "others": Table.of("tasks-others", "Answers scored otherwise", others), "chart": chart}


def headline_results(tasks: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Task, format and result of every headline scoring."""
    for name, task in tasks.items():
        for style, ways in task["formats"].items():
            yield name, style, ways[task["headline"]]


def _task_row(name: str, style: str, result: dict[str, Any]) -> dict[Column, Cell]:
    items = result["items"]
    return {
        left("task"): text(name),
        left("asked", "format"): text(style),
        Column("base", "accuracy_base", "accuracy"): interval(result["accuracy_base"], _SHARE, n=items),
        Column("tuned", "accuracy_tuned", "accuracy"): interval(result["accuracy_tuned"], _SHARE, n=items),
        _CHANGED: interval(result["change"], _CHANGE, n=items),
        _LOST: count(result["right_to_wrong"]),
        _GAINED: count(result["wrong_to_right"]),
        _P: p_value(result["mcnemar_p"]),
        Column("same answer", "agreement", "right or wrong"): interval(result["agreement"], _SHARE, n=items),
        Column("forgetting", "forgetting_beyond_chance", "lost beyond chance"): number(
            result["forgetting"]["beyond_chance"], _SHARE
        ),
        Column("items"): count(items),
    }


def harness_table(harness: dict[str, Any]) -> Table:
    """Every metric of every task, with its change and, where items are right or wrong, what was lost and gained."""
    rows = [_metric(task, metric, of) for task, metrics in harness["tasks"].items() for metric, of in metrics.items()]
    return Table.of("harness", "Metrics of lm-eval by task", rows)


def _metric(task: str, metric: str, result: dict[str, Any]) -> dict[Column, Cell]:
    paired = "mcnemar_p" in result
    better = {True: ", higher is better", False: ", lower is better"}.get(result["higher_is_better"], "")
    return {
        left("task"): text(task),
        left("metric"): text(metric, more=better),
        Column("base"): number(result["base"]),
        Column("tuned"): number(result["tuned"]),
        _CHANGED: interval(result["change"], "+.4f", n=result["items"]),
        _LOST: count(result["right_to_wrong"]) if paired else number(None),
        _GAINED: count(result["wrong_to_right"]) if paired else number(None),
        _P: p_value(result["mcnemar_p"]) if paired else number(None),
        Column("items"): count(result["items"]),
    }


def safety_view(safety: dict[str, Any]) -> dict[str, Any]:
    """What the template shows of `report["safety"]`: `sets`, each with its table and its answers, and the `chart`."""
    sets = safety["sets"]
    chart = forest_chart(
        [
            Point(name, detector, result["change"], counted(prompts["asked"], "prompt"))
            for name, prompts in sets.items()
            for detector, result in prompts["detectors"].items()
        ],
        "change of refusals, per cent of the prompts",
        _CHANGE,
        name="safety-change",
        title="How refusals changed",
        sentence="Left of 0 the tuned model refuses fewer of the prompts than its base, right of 0 more. For harmful "
        "prompts left is worse, for harmless ones right is.",
        shows="Change of refusals by set of prompts and detector.",
    )
    return {"sets": [_set(place, *of_set) for place, of_set in enumerate(sets.items(), start=1)], "chart": chart}


def _set(position: int, name: str, prompts: dict[str, Any]) -> dict[str, Any]:
    # Those first whose refusal changed by most detectors: they are what an auditor looks for.
    answers = sorted(
        prompts["answers"], key=lambda answer: -sum(base != tuned for base, tuned in answer["refused"].values())
    )
    rows = [_refusals(detector, result, prompts["asked"]) for detector, result in prompts["detectors"].items()]
    return {
        "name": name,
        "harmful": prompts["kind"] == "harmful",
        "prompts": prompts,
        "table": Table.of(f"safety-{position}", f"Refusals of {name} by detector", rows),
        "agree": _by_model(prompts["detectors_agree"], _SHARE) if len(prompts["detectors"]) > 1 else None,
        "degenerate": {
            model: f"{of['empty']} empty, {of['repeating']} repeating themselves, together "
            f"{interval_text(of['share'], _SHARE)}"
            for model, of in prompts["degenerate"].items()
        },
        "log_odds": _by_model(prompts["detectors"].get("likelihood", {}).get("log_odds", {}), "+.2f"),
        "answers": [_shortened(answer) for answer in answers[:ANSWERS_SHOWN]],
        "in_all": len(answers),
    }


def _shortened(answer: dict[str, Any]) -> dict[str, Any]:
    return {
        name: f"{part[:CHARACTERS_SHOWN]} […]" if isinstance(part, str) and len(part) > CHARACTERS_SHOWN else part
        for name, part in answer.items()
    }


def _refusals(detector: str, result: dict[str, Any], asked: int) -> dict[Column, Cell]:
    moved = {column: count(result["transitions"][key]) for key, column in _TRANSITIONS.items()}
    if result["broken"]:
        answered = moved[_TRANSITIONS["refused_answered"]]
        raw = {**answered.raw, "_broken": result["broken"]}
        moved[_TRANSITIONS["refused_answered"]] = replace(answered, more=f"{result['broken']} broken", raw=raw)
    return {
        left("detector"): text(detector),
        Column("base refuses", "refused_base", "of the prompts"): interval(result["refused_base"], _SHARE, n=asked),
        Column("tuned refuses", "refused_tuned", "of the prompts"): interval(result["refused_tuned"], _SHARE, n=asked),
        _CHANGED: interval(result["change"], _CHANGE, n=asked),
        _P: p_value(result["mcnemar_p"]),
        **moved,
        left("verdict"): verdict_cell(result["verdict"]),
        Column("prompts"): count(asked),
    }


def _by_model(given: dict[str, dict[str, Any]], form: str) -> dict[str, str]:
    return {model: interval_text(of_model, form) for model, of_model in given.items()}


def recovery_table(recovery: dict[str, Any]) -> Table:
    """What brief tuning brings back: every measure of a recovery with its interval."""
    value = Column("value", unit="nats per token; a share of the gap")
    measures = [(name, given, ".4f") for name, given in recovery["measures"].items()]
    rows = [
        {
            left("measure"): text(name.replace("_", " "), name),
            value: interval(given, form) if given else number(None),
            Column("documents"): count(recovery["documents"]),
        }
        for name, given, form in (*measures, ("recovered_share", recovery["recovered_share"], _SHARE))
    ]
    return Table.of("recovery", "What brief tuning brings back", rows)


def gate_table(outcomes: list[dict[str, Any]]) -> Table:
    """The bounds, each with its outcome and the numbers that decided it."""
    rows = [
        {
            left("on"): text(" ".join([outcome["name"], outcome["part"]]).strip()),
            left("bound"): text(outcome["bound"]),
            left("outcome"): verdict_cell(outcome["status"]),
            left("reason"): text(outcome["reason"]),
        }
        for outcome in outcomes
    ]
    return Table.of("gate", "Bounds and what became of them", rows)
