"""An audit for continuous integration: its bounds as JUnit XML, its table as Markdown for a job's summary."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from keeptune.audit.gate import BROKEN, HELD, NOT_SURELY, floor_of, readings
from keeptune.audit.verdict import NO_EVIDENCE, SHOWN
from keeptune.storage import write_text

# XML 1.0 has no way to write these, not even escaped; half a surrogate pair is no text in any encoding.
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARKDOWN_MEANS = re.compile(r"[&<>|`*_\[\]\\~@#!]")
_MARKS = {HELD: "✅ held", BROKEN: "❌ broken", NOT_SURELY: f"⚠️ {NOT_SURELY}", NO_EVIDENCE: f"⚠️ {NO_EVIDENCE}"}


def write_junit(path: Path, report: dict[str, Any]) -> None:
    """One testcase for each bound and thing measured: a broken bound is a failure, no evidence is skipped; atomically.

    Raises:
        StorageError: the file cannot be written.
    """
    statuses = [outcome["status"] for outcome in report["gate"]]
    counts = {"tests": len(statuses), "failures": statuses.count(BROKEN), "skipped": statuses.count(NO_EVIDENCE)}
    suites = Element("testsuites")
    suite = SubElement(suites, "testsuite", {name: str(count) for name, count in counts.items()}, name="keeptune audit")
    for outcome in report["gate"]:
        name, part, bound, reason = (_xml_text(outcome[key]) for key in ("name", "part", "bound", "reason"))
        measured = f"{name}.{part}" if part else name
        case = SubElement(suite, "testcase", classname=f"keeptune.audit.{measured}", name=bound)
        if outcome["status"] == BROKEN:
            SubElement(case, "failure", message=reason).text = reason
        elif outcome["status"] == NO_EVIDENCE:
            SubElement(case, "skipped", message=reason)
        else:
            SubElement(case, "system-out").text = reason
    indent(suites)
    write_text(path, tostring(suites, encoding="unicode") + "\n")


def write_markdown(path: Path, report: dict[str, Any]) -> None:
    """The report's tables and what became of each bound, as GitHub's Markdown; atomically.

    Raises:
        StorageError: the file cannot be written.
    """
    outcomes = {(outcome["name"], outcome["measure"]): outcome for outcome in report["gate"] if not outcome["part"]}
    tuned, base = (_markdown_text(report[model]["source"]) for model in ("tuned", "base"))
    lines = [f"### Drift of {tuned} from {base}", ""]
    lines += ["| text | measure | value | 95 % interval | noise floor | verdict | bound | outcome |"]
    lines += ["|---|---|---:|---:|---:|---|---|---|"]
    for text, reading in report["texts"].items():
        for measure, label in SHOWN.items():
            interval, outcome = reading["measures"][measure], outcomes.get((text, measure))
            ends = "" if interval["low"] is None else f"{interval['low']:.4f} to {interval['high']:.4f}"
            cells = [_markdown_text(text), _markdown_text(label), f"{interval['value']:.4f}", ends]
            cells += [f"{floor_of(report, text, measure):.2g}", reading["verdicts"][measure]]
            cells += [_markdown_text(outcome["bound"]), _MARKS[outcome["status"]]] if outcome else ["", ""]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Nats per token; agreement is a fraction of tokens. Intervals are over documents.", ""]
    lines += [*_changes_table(report), ""]
    lines += [f"- {_MARKS[outcome['status']]}: {_markdown_text(outcome['reason'])}" for outcome in report["gate"]]
    write_text(path, "\n".join(lines).rstrip() + "\n")


def _changes_table(report: dict[str, Any]) -> list[str]:
    """Accuracy, agreement and refusals: everything in a report that is a share of items or prompts."""
    lines = ["| on | measure | value | 95 % interval | n |", "|---|---|---:|---:|---:|"]
    for reading in readings(report):
        if reading.unit == "document":
            continue
        value, low, high = (100 * end if end is not None else 0.0 for end in reading.change)
        cells = [_markdown_text(reading.label), f"{reading.measure}, change in points", f"{value:+.1f}"]
        lines.append(f"| {' | '.join([*cells, f'{low:+.1f} to {high:+.1f}', str(reading.count)])} |")
    return lines if len(lines) > 2 else []


def _xml_text(text: str) -> str:
    return _NOT_IN_XML.sub("\ufffd", text)


def _markdown_text(text: str) -> str:
    """Text that stands in a cell as it is: no markup, no HTML, one line."""
    line = " ".join(_xml_text(text).split())
    return _MARKDOWN_MEANS.sub(lambda match: f"&#{ord(match[0])};", line)
