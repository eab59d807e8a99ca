"""A report for continuous integration: its bounds as JUnit XML, its findings as Markdown for a job's summary."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from keeptune.report.document import Outcome, OutcomeStatus, Report
from keeptune.report.table import Table
from keeptune.storage import write_text

# XML 1.0 has no way to write these, not even escaped; half a surrogate pair is no text in any encoding.
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARKDOWN_MEANS = re.compile(r"[&<>|`*_\[\]\\~@#!]")
_MARKS = {
    OutcomeStatus.HELD: "✅ held",
    OutcomeStatus.BROKEN: "❌ broken",
    OutcomeStatus.NOT_SURELY: f"⚠️ {OutcomeStatus.NOT_SURELY}",
    OutcomeStatus.NO_EVIDENCE: f"⚠️ {OutcomeStatus.NO_EVIDENCE}",
}


def write_junit(path: Path, outcomes: Sequence[Outcome]) -> None:
    """One testcase for each bound and thing measured: a broken bound is a failure, no evidence is skipped; atomically.

    Raises:
        StorageError: the file cannot be written.
    """
    statuses = [outcome.status for outcome in outcomes]
    failures, skipped = statuses.count(OutcomeStatus.BROKEN), statuses.count(OutcomeStatus.NO_EVIDENCE)
    counts = {"tests": len(statuses), "failures": failures, "skipped": skipped}
    suites = Element("testsuites")
    suite = SubElement(suites, "testsuite", {name: str(count) for name, count in counts.items()}, name="keeptune audit")
    for outcome in outcomes:
        measured = f"{outcome.subject}.{outcome.part}" if outcome.part else outcome.subject
        name, reason = _xml_text(outcome.bound), _xml_text(outcome.reason)
        case = SubElement(suite, "testcase", classname=f"keeptune.audit.{_xml_text(measured)}", name=name)
        if outcome.status is OutcomeStatus.BROKEN:
            SubElement(case, "failure", message=reason).text = reason
        elif outcome.status is OutcomeStatus.NO_EVIDENCE:
            SubElement(case, "skipped", message=reason)
        else:
            SubElement(case, "system-out").text = reason
    indent(suites)
    write_text(path, tostring(suites, encoding="unicode") + "\n")


def write_markdown(path: Path, report: Report, sentence: str, tables: Sequence[Table]) -> None:
    """The sentence, the tables, and what became of each bound, as GitHub's Markdown; atomically.

    Raises:
        StorageError: the file cannot be written.
    """
    tuned = ", ".join(_markdown_text(model.source) for model in report.tuned)
    lines = [f"### {tuned} against {_markdown_text(report.base.source)}", "", _markdown_text(sentence), ""]
    for table in tables:
        if table.rows:
            lines += [f"**{_markdown_text(table.caption)}**", "", *table.markdown(_markdown_text), ""]
    lines += ["Losses in nats per token; intervals of 95 %. p holds for all findings together.", ""]
    lines += [f"- {_MARKS[outcome.status]}: {_markdown_text(outcome.reason)}" for outcome in report.gate]
    write_text(path, "\n".join(lines).rstrip() + "\n")


def _xml_text(text: str) -> str:
    return _NOT_IN_XML.sub("\ufffd", text)


def _markdown_text(text: str) -> str:
    """Text that stands in a cell as it is: no markup, no HTML, one line."""
    line = " ".join(_xml_text(text).split())
    return _MARKDOWN_MEANS.sub(lambda match: f"&#{ord(match[0])};", line)
