"""The report page of an audit: what `report.json` holds, for people, with what was found first and how at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from keeptune.audit.gate import BROKEN, HELD
from keeptune.audit.page import sections
from keeptune.audit.page.sections import FELL, ROSE, headline_results, verdict_cell
from keeptune.audit.page.shell import render
from keeptune.audit.page.table import Cell, Column, Table, count, interval, left, number, text
from keeptune.audit.page.where import where_view
from keeptune.audit.page.words import FORMATS, IN_WORDS, counted, listed, shown_number
from keeptune.audit.safety.detectors import LESS, MORE
from keeptune.audit.verdict import DRIFTED, NO_DRIFT, NO_EVIDENCE
from keeptune.stats import LEVEL, MIN_DOCUMENTS

P_BELOW = 0.05
_NAMED = 3
_SECTIONS: dict[str, Callable[[Any], Any]] = {
    "tasks": sections.tasks_view,
    "lm_eval": sections.harness_table,
    "safety": sections.safety_view,
    "where": where_view,
    "recovery": sections.recovery_table,
    "gate": sections.gate_table,
}


def audit_page(report: dict[str, Any]) -> str:
    """The page of an audit: one HTML file under 6 MB that needs no network.

    Args:
        report: as `keeptune.audit.run.audit` gives it. Its sections `tasks`, `lm_eval`, `safety`, `where`, `recovery`
            and `gate` may be missing or empty, and then the page has none. Nothing in it is trusted: all is escaped.

    Raises:
        KeyError: a part that every audit has is missing.
        jinja2.UndefinedError: a part of a section is missing.
    """
    return render(
        "audit.html",
        report=report,
        level=f"{LEVEL * 100:.0f}\u202f%",
        headline={"sentence": sentence(report), "table": _summary(report)},
        texts=sections.texts_view(report),
        **{name: view(report[name]) if report.get(name) else None for name, view in _SECTIONS.items()},
        methods={
            "lines": list(_lines(report)),
            "facts": list(_facts(report)),
            "definitions": list(_definitions(report)),
        },
    )


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
        of_kind = {name: prompts["detectors"] for name, prompts in sets.items() if prompts["kind"] == kind}
        changed = [words for name, detectors in of_kind.items() if (words := _changed_refusals(name, detectors))]
        verdicts = {result["verdict"] for detectors in of_kind.values() for result in detectors.values()}
        if changed:
            yield f"refusals of {kind} prompts changed on {_named(changed)}"
        elif kind == "harmful" and verdicts - {NO_EVIDENCE}:
            yield f"refusals of {kind} prompts did not change beyond chance"


def _changed_refusals(name: str, detectors: dict[str, Any]) -> str:
    found = [f"{detector} {_points(of)}" for detector, of in detectors.items() if of["verdict"] in (LESS, MORE)]
    return f"{name} (by {', '.join(found)} points)" if found else ""


def _points(result: dict[str, Any]) -> str:
    return shown_number(result["change"]["value"] * 100, "+.1f")


def _named(names: list[str]) -> str:
    more = len(names) - _NAMED
    return listed([*names[:_NAMED], f"{more} more"] if more > 0 else names)


def _summary(report: dict[str, Any]) -> Table:
    head = (left("on"), left("measure"), Column("value", unit="with its interval"), left("n", "n_of"), left("verdict"))
    rows = [
        dict(zip(head, (text(on), measure, value, text(counted(*n)), verdict), strict=True))
        for on, measure, value, n, verdict in _found(report)
    ]
    return Table.of("summary", "What was found", rows)


def _found(report: dict[str, Any]) -> Iterator[tuple[str, Cell, Cell, tuple[int, str], Cell]]:
    for name, reading in report["texts"].items():
        kl, documents = interval(reading["measures"]["kl"]), (reading["documents"], "document")
        yield name, text("drift, KL in nats per token", "kl"), kl, documents, verdict_cell(reading["verdicts"]["kl"])
    for name, style, result in headline_results(report.get("tasks", {})):
        measure = text(f"change of accuracy, asked {FORMATS.get(style, style)}", f"accuracy_{style}")
        change, items = interval(result["change"], "+.1%", n=result["items"]), result["items"]
        yield name, measure, change, (items, "item"), verdict_cell(change_verdict(result, items))
    for name, prompts in report.get("safety", {}).get("sets", {}).items():
        for detector, result in prompts["detectors"].items():
            measure = text(f"change of refusals of {prompts['kind']} prompts, by {detector}", f"refusals_{detector}")
            change, asked = interval(result["change"], "+.1%", n=prompts["asked"]), prompts["asked"]
            yield name, measure, change, (asked, "prompt"), verdict_cell(result["verdict"])
    if recovery := report.get("recovery"):
        measure, share = text("share of the CE change recovered", "recovered_share"), recovery["recovered_share"]
        value = interval(share, ".1%") if share else number(None)
        yield recovery["text"], measure, value, (recovery["documents"], "document"), text(recovery["verdict"])
    if gate := report.get("gate"):
        statuses = [outcome["status"] for outcome in gate]
        held, broken = statuses.count(HELD), statuses.count(BROKEN)
        mark = "changed" if broken else "unchanged" if held == len(gate) else "unsure"
        verdict = text(f"{counted(broken, 'bound')} broken" if broken else "no bound broken", mark=mark)
        yield "gate", text("bounds held"), count(held), (len(gate), "bound"), verdict


def _lines(report: dict[str, Any]) -> Iterator[str]:
    yield from _text_lines(report)
    yield f"Noise floor: {report['noise_floor']['how']}."
    yield f"Verdicts on drift. {report['verdict_rule']}"
    yield f"Intervals of what is read on texts: {report['intervals']}."
    if report.get("tasks"):
        yield from _task_lines(report["tasks"])
        yield (
            f"Accuracy “fell” or “rose” where McNemar’s exact two-sided p is below {P_BELOW}; p is not corrected for "
            "the number of tasks and formats."
        )
    if safety := report.get("safety"):
        yield f"Verdicts on refusals. {safety['verdict_rule']} p is not corrected for the number of sets and detectors."
        for name, prompts in safety["sets"].items():
            asked = counted(prompts["asked"], f"{prompts['kind']} prompt")
            style = FORMATS.get(prompts["format"], prompts["format"])
            answered = f"answered with the likeliest tokens, at most {prompts['new_tokens']:,}"
            yield f"{name}: {asked} from {prompts['source']}, asked {style}, {answered}."
    layers = report.get("where", {}).get("layers", {})
    if "windows" in layers:
        yield (
            f"Layers were compared on {counted(layers['windows'], 'window')} with "
            f"{counted(layers['tokens'], 'token')} of {layers['text']}: a sample, so that its KL differs a little."
        )
    if recovery := report.get("recovery"):
        yield (
            f"Recovery: both models tuned alike for {counted(recovery['steps'], 'step')} of "
            f"{counted(recovery['rows_a_step'], 'row')} at learning rate {recovery['learning_rate']:g} on "
            f"{counted(recovery['documents_tuned_on'], 'document')} of {recovery['text']}, read on "
            f"{counted(recovery['documents'], 'other document')}. {recovery['rule']}"
        )
    yield "One tuned model was measured: the intervals do not cover how another training run would differ."


def _text_lines(report: dict[str, Any]) -> Iterator[str]:
    for name, reading in report["texts"].items():
        read = f"{counted(reading['documents'], 'document')} with {counted(reading['tokens'], 'token')}"
        yield f"Drift on {name} (source: {reading['source']}) was read on {read} that are predicted."
    if settings := report.get("settings"):
        yield (
            f"Of each text at most {counted(settings['docs'], 'document')}, evenly spaced; of each document at most "
            f"{counted(settings['windows'], 'window')} of {counted(settings['max_length'], 'token')}."
        )
    if report.get("vocabulary"):
        yield f"The models’ vocabularies differ: {report['vocabulary']}."


def _task_lines(tasks: dict[str, Any]) -> Iterator[str]:
    for name, task in tasks.items():
        asked = listed([FORMATS.get(style, style) for style in task["formats"]])
        in_source = task.get("items_in_source", task.get("items_in_file"))
        of_all = f" of {in_source:,}" if in_source else ""
        left_out = sum(ways["left_out"] for ways in task["formats"].values())
        short = f" {counted(left_out, 'answer')} could not be scored and are left out." if left_out else ""
        line = f"{name}: {len(task['asked']):,}{of_all} questions from {task['source']}, evenly spaced, asked {asked}."
        yield line + short


def _facts(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for model in ("base", "tuned"):
        mark = report[model].get("fingerprint")
        yield model.capitalize(), f"{report[model]['source']}{f' (fingerprint {mark[:16]})' if mark else ''}"
    for key in ("commit", "seed"):
        if report.get(key) is not None:
            yield key.capitalize(), str(report[key])
    for key in ("machine", "versions"):
        known = [f"{part} {value}" for part, value in report.get(key, {}).items() if value not in (None, "")]
        if known:
            yield key.capitalize(), ", ".join(known)


def _definitions(report: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for name, formula in report["measures"].items():
        label, words = IN_WORDS.get(name, (name, ""))
        yield f"measure-{name}", label, words, formula
    for position, (name, words) in enumerate(report.get("task_measures", {}).items()):
        yield f"task-measure-{position}", name.replace("_", " "), words, ""
    for position, (name, words) in enumerate(report.get("safety", {}).get("detectors", {}).items()):
        yield f"detector-{position}", f"refused, by {name}", words, ""
