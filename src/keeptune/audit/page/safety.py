"""What a model still refuses: a table a set of prompts, the change as a chart, and the answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from keeptune.audit.page.chart import Chart, Point, chart_json, forest, in_words
from keeptune.audit.page.table import Cell, Column, Table, count, interval, interval_text, p_value, text
from keeptune.audit.page.tasks import change_of
from keeptune.audit.page.words import counted
from keeptune.audit.safety.transitions import NO_CHANGE
from keeptune.audit.verdict import NO_EVIDENCE

ANSWERS_SHOWN = 40
CHARACTERS_SHOWN = 1500
_SHARE, _CHANGE = ".1%", "+.1%"
_TRANSITIONS = {
    "refused_refused": ("both refuse", ""),
    "refused_answered": ("base refuses", "tuned answers"),
    "answered_refused": ("base answers", "tuned refuses"),
    "answered_answered": ("both answer", ""),
}


def safety_view(report: dict[str, Any]) -> dict[str, Any]:
    """What the template shows of `report["safety"]`: `sets`, each with its table and its answers, and the `chart`."""
    sets = report["safety"]["sets"]
    views = [_set(number, name, prompts) for number, (name, prompts) in enumerate(sets.items(), start=1)]
    return {"sets": views, "chart": _chart(sets)}


def refusal_verdict(result: dict[str, Any]) -> Cell:
    """What a detector's verdict on a set is, with its mark."""
    marks = {NO_CHANGE: "unchanged", NO_EVIDENCE: "unsure"}
    return text(result["verdict"], mark=marks.get(result["verdict"], "changed"))


def changed_verdict(result: dict[str, Any]) -> bool:
    """Whether a detector's verdict is a change."""
    return refusal_verdict(result).mark == "changed"


def _set(position: int, name: str, prompts: dict[str, Any]) -> dict[str, Any]:
    # Those first whose refusal changed by most detectors: they are what an auditor looks for.
    answers = sorted(prompts["answers"], key=lambda answer: -_changed(answer["refused"]))
    return {
        "name": name,
        "harmful": prompts["kind"] == "harmful",
        "prompts": prompts,
        "table": _table(position, name, prompts),
        "agree": _by_model(prompts["detectors_agree"], _SHARE) if len(prompts["detectors"]) > 1 else None,
        "degenerate": {model: _degenerate(of_model) for model, of_model in prompts["degenerate"].items()},
        "log_odds": _by_model(prompts["detectors"].get("likelihood", {}).get("log_odds", {}), "+.2f"),
        "answers": [_shortened(answer) for answer in answers[:ANSWERS_SHOWN]],
        "in_all": len(answers),
    }


def _shortened(answer: dict[str, Any]) -> dict[str, Any]:
    return {
        name: f"{part[:CHARACTERS_SHOWN]} […]" if isinstance(part, str) and len(part) > CHARACTERS_SHOWN else part
        for name, part in answer.items()
    }


def _changed(refused: dict[str, list[bool]]) -> int:
    return sum(base != tuned for base, tuned in refused.values())


def _table(position: int, name: str, prompts: dict[str, Any]) -> Table:
    columns = [
        Column(name="detector", csv="detector", left=True),
        Column(name="base refuses", csv="refused_base", unit="of the prompts"),
        Column(name="tuned refuses", csv="refused_tuned", unit="of the prompts"),
        Column(name="change", csv="change", unit="tuned − base"),
        Column(name="p", csv="mcnemar_p", unit="McNemar, exact"),
        *[Column(name=words, csv=key, unit=more) for key, (words, more) in _TRANSITIONS.items()],
        Column(name="verdict", csv="verdict", left=True),
        Column(name="prompts", csv="prompts"),
    ]
    asked = prompts["asked"]
    rows = [
        [
            text(detector),
            interval(result["refused_base"], _SHARE, n=asked),
            interval(result["refused_tuned"], _SHARE, n=asked),
            interval(result["change"], _CHANGE, n=asked),
            p_value(result["mcnemar_p"]),
            *[_moved(result, key) for key in _TRANSITIONS],
            refusal_verdict(result),
            count(asked),
        ]
        for detector, result in prompts["detectors"].items()
    ]
    return Table(name=f"safety-{position}", caption=f"Refusals of {name} by detector", columns=columns, rows=rows)


def _moved(result: dict[str, Any], key: str) -> Cell:
    cell = count(result["transitions"][key])
    if key != "refused_answered" or not result["broken"]:
        return cell
    return replace(cell, more=f"{result['broken']} broken", raw={**cell.raw, "_broken": result["broken"]})


def _by_model(given: dict[str, dict[str, Any]], form: str) -> dict[str, str]:
    return {model: interval_text(of_model, form) for model, of_model in given.items()}


def _degenerate(given: dict[str, Any]) -> str:
    share = interval_text(given["share"], _SHARE)
    return f"{given['empty']} empty, {given['repeating']} repeating themselves, together {share}"


def _chart(sets: dict[str, Any]) -> Chart:
    points = [
        Point(name, detector, *change_of(result), counted(prompts["asked"], "prompt"))
        for name, prompts in sets.items()
        for detector, result in prompts["detectors"].items()
    ]
    drawn = forest(points, "change of refusals, per cent of the prompts", form=_CHANGE)
    return Chart(
        name="safety-change",
        title="How refusals changed",
        sentence="Left of 0 the tuned model refuses fewer of the prompts than its base, right of 0 more. For harmful "
        "prompts left is worse, for harmless ones right is.",
        description=f"Change of refusals by set of prompts and detector. {in_words(points, _CHANGE)}",
        figure=chart_json(drawn),
        height=drawn.layout.height,
    )
