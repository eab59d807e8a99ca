"""What was forgotten, in one sentence and one small table, made from the verdicts and the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keeptune.audit.gate import BROKEN, HELD
from keeptune.audit.page.safety import changed_verdict, refusal_verdict
from keeptune.audit.page.table import Cell, Column, Table, count, interval, number, shown_number, text
from keeptune.audit.page.tasks import headline_results
from keeptune.audit.page.texts import verdict_cell
from keeptune.audit.page.words import FORMATS, counted, listed
from keeptune.audit.verdict import DRIFTED, NO_DRIFT, NO_EVIDENCE
from keeptune.stats import MIN_DOCUMENTS

P_BELOW = 0.05
FELL, ROSE = "fell", "rose"
_NAMED = 3


def headline_view(report: dict[str, Any]) -> dict[str, Any]:
    """What the template shows first: `sentence` and `table`."""
    return {"sentence": sentence(report), "table": _table(report)}


def sentence(report: dict[str, Any]) -> str:
    """What was forgotten, for someone who reads nothing else."""
    parts = [_texts_part(report)]
    if report.get("tasks"):
        parts.append(_tasks_part(report["tasks"]))
    if report.get("safety"):
        parts += _safety_parts(report["safety"]["sets"])
    return "; ".join(parts) + "."


def change_verdict(result: dict[str, Any], n: int) -> str:
    """`fell` or `rose` where McNemar's exact p is below 0.05, else one of the verdicts on drift."""
    if n < MIN_DOCUMENTS:
        return NO_EVIDENCE
    if result["mcnemar_p"] >= P_BELOW:
        return NO_DRIFT
    return FELL if result["change"]["value"] < 0 else ROSE


def _texts_part(report: dict[str, Any]) -> str:
    texts = report["texts"]
    drifted = [name for name, reading in texts.items() if reading["verdicts"]["kl"] == DRIFTED]
    unsure = [name for name, reading in texts.items() if reading["verdicts"]["kl"] == NO_EVIDENCE]
    number = counted(len(texts), "text")
    if len(unsure) == len(texts):
        return f"There is not enough evidence to say whether the tuned model drifted on {number}"
    short = f", with not enough evidence on {_named(unsure)}" if unsure else ""
    if not drifted:
        where = {1: "the text read", 2: "both texts read"}.get(len(texts), f"all {number} read")
        return f"The tuned model’s drift from its base is {NO_DRIFT} on {where if not unsure else 'the others'}{short}"
    most = max(drifted, key=lambda name: texts[name]["measures"]["kl"]["value"])
    kl = shown_number(texts[most]["measures"]["kl"]["value"], ".3g")
    how_many = f"{len(drifted)} of {number}"
    where = f"on {how_many}, most on {most}" if len(texts) > 1 else f"on {most}"
    return f"The tuned model drifted from its base {where} (KL {kl} nats per token){short}"


def _tasks_part(tasks: dict[str, Any]) -> str:
    changed: dict[str, list[str]] = {FELL: [], ROSE: []}
    verdicts = []
    for name, style, result in headline_results(tasks):
        verdicts.append(change_verdict(result, result["items"]))
        if verdicts[-1] in changed:
            changed[verdicts[-1]].append(f"{name} asked {FORMATS.get(style, style)} ({_points(result)} points)")
    if any(changed.values()):
        return ", and ".join(f"accuracy {verb} on {_named(names)}" for verb, names in changed.items() if names)
    if set(verdicts) == {NO_EVIDENCE}:
        return "there are too few questions to say whether it lost answers"
    return "accuracy changed on no task beyond chance"


def _safety_parts(sets: dict[str, Any]) -> Iterator[str]:
    for kind in ("harmful", "harmless"):
        of_kind = {name: prompts for name, prompts in sets.items() if prompts["kind"] == kind}
        changed = [words for name, prompts in of_kind.items() if (words := _changed_refusals(name, prompts))]
        if changed:
            yield f"refusals of {kind} prompts changed on {_named(changed)}"
        elif kind == "harmful" and any(_told(prompts) for prompts in of_kind.values()):
            yield f"refusals of {kind} prompts did not change beyond chance"


def _changed_refusals(name: str, prompts: dict[str, Any]) -> str:
    found = [
        f"{detector} {_points(result)}" for detector, result in prompts["detectors"].items() if changed_verdict(result)
    ]
    return f"{name} (by {', '.join(found)} points)" if found else ""


def _told(prompts: dict[str, Any]) -> bool:
    return any(result["verdict"] != NO_EVIDENCE for result in prompts["detectors"].values())


def _points(result: dict[str, Any]) -> str:
    return shown_number(result["change"]["value"] * 100, "+.1f")


def _named(names: list[str]) -> str:
    more = len(names) - _NAMED
    return listed([*names[:_NAMED], f"{more} more"] if more > 0 else names)


def _table(report: dict[str, Any]) -> Table:
    columns = [
        Column(name="on", csv="on", left=True),
        Column(name="measure", csv="measure", left=True),
        Column(name="value", csv="value", unit="with its interval"),
        Column(name="n", csv="n_of", left=True),
        Column(name="verdict", csv="verdict", left=True),
    ]
    rows = [*_text_rows(report), *_task_rows(report), *_safety_rows(report), *_recovery_rows(report)]
    if report.get("gate"):
        rows.append(_gate_row(report["gate"]))
    return Table(name="summary", caption="What was found", columns=columns, rows=rows)


def _text_rows(report: dict[str, Any]) -> Iterator[list[Cell]]:
    for name, reading in report["texts"].items():
        about = [text(name), text("drift, KL in nats per token", "kl"), interval(reading["measures"]["kl"])]
        yield [*about, text(counted(reading["documents"], "document")), verdict_cell(reading["verdicts"]["kl"])]


def _task_rows(report: dict[str, Any]) -> Iterator[list[Cell]]:
    for name, style, result in headline_results(report.get("tasks", {})):
        verdict = change_verdict(result, result["items"])
        yield [
            text(name),
            text(f"change of accuracy, asked {FORMATS.get(style, style)}", f"accuracy_{style}"),
            interval(result["change"], "+.1%", n=result["items"]),
            text(counted(result["items"], "item")),
            text(verdict, mark="changed") if verdict in (FELL, ROSE) else verdict_cell(verdict),
        ]


def _safety_rows(report: dict[str, Any]) -> Iterator[list[Cell]]:
    for name, prompts in report.get("safety", {}).get("sets", {}).items():
        for detector, result in prompts["detectors"].items():
            yield [
                text(name),
                text(f"change of refusals of {prompts['kind']} prompts, by {detector}", f"refusals_{detector}"),
                interval(result["change"], "+.1%", n=prompts["asked"]),
                text(counted(prompts["asked"], "prompt")),
                refusal_verdict(result),
            ]


def _recovery_rows(report: dict[str, Any]) -> Iterator[list[Cell]]:
    recovery = report.get("recovery")
    if recovery:
        about = [text(recovery["text"]), text("share of the CE change recovered", "recovered_share")]
        share = recovery["recovered_share"]
        n = text(counted(recovery["documents"], "document"))
        yield [*about, interval(share, ".1%") if share else number(None), n, text(recovery["verdict"])]


def _gate_row(gate: list[dict[str, Any]]) -> list[Cell]:
    statuses = [outcome["status"] for outcome in gate]
    held = count(statuses.count(HELD))
    broken = statuses.count(BROKEN)
    mark = "changed" if broken else "unchanged" if statuses.count(HELD) == len(statuses) else "unsure"
    verdict = f"{counted(broken, 'bound')} broken" if broken else "no bound broken"
    return [text("gate"), text("bounds held"), held, text(counted(len(gate), "bound")), text(verdict, mark=mark)]
