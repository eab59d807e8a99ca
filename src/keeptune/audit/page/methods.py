"""What was really run, in sentences made from the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from keeptune.audit.page.headline import P_BELOW
from keeptune.audit.page.words import FORMATS, IN_WORDS, counted, listed


def methods_view(report: dict[str, Any]) -> dict[str, Any]:
    """What the template shows last: `lines`, `facts` (name and text) and `definitions` (id, name, words, formula)."""
    return {"lines": list(_lines(report)), "facts": list(_facts(report)), "definitions": list(_definitions(report))}


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
    if report.get("safety"):
        yield from _safety_lines(report["safety"])
    layers = report.get("where", {}).get("layers", {})
    if "windows" in layers:
        yield (
            f"Layers were compared on {counted(layers['windows'], 'window')} with "
            f"{counted(layers['tokens'], 'token')} of {layers['text']}: a sample, so that its KL differs a little."
        )
    if report.get("recovery"):
        recovery = report["recovery"]
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
    settings = report.get("settings")
    if settings:
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


def _safety_lines(safety: dict[str, Any]) -> Iterator[str]:
    yield f"Verdicts on refusals. {safety['verdict_rule']} p is not corrected for the number of sets and detectors."
    for name, prompts in safety["sets"].items():
        style = FORMATS.get(prompts["format"], prompts["format"])
        line = (
            f"{name}: {counted(prompts['asked'], prompts['kind'] + ' prompt')} from {prompts['source']}, asked {style}"
        )
        yield f"{line}, answered with the likeliest tokens, at most {prompts['new_tokens']:,}."


def _facts(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for model in ("base", "tuned"):
        fingerprint = report[model].get("fingerprint")
        yield (
            model.capitalize(),
            f"{report[model]['source']}{f' (fingerprint {fingerprint[:16]})' if fingerprint else ''}",
        )
    for name, key in (("Commit", "commit"), ("Seed", "seed")):
        if report.get(key) is not None:
            yield name, str(report[key])
    for name, key in (("Machine", "machine"), ("Versions", "versions")):
        known = [f"{part} {value}" for part, value in report.get(key, {}).items() if value not in (None, "")]
        if known:
            yield name, ", ".join(known)


def _definitions(report: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for name, formula in report["measures"].items():
        label, words = IN_WORDS.get(name, (name, ""))
        yield f"measure-{name}", label, words, formula
    for position, (name, words) in enumerate(report.get("task_measures", {}).items()):
        yield f"task-measure-{position}", name.replace("_", " "), words, ""
    for position, (name, words) in enumerate(report.get("safety", {}).get("detectors", {}).items()):
        yield f"detector-{position}", f"refused, by {name}", words, ""
