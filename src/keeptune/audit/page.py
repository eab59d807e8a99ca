"""The page of a report: what was found first, every section's view, and at the end how it was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from keeptune.audit.headline import clauses
from keeptune.audit.section import AnySection
from keeptune.report.document import OutcomeStatus, Report, Status
from keeptune.report.finding import RULE
from keeptune.report.shell import render
from keeptune.report.table import Table, left, text
from keeptune.report.view import View, brief_table, default_view, definitions
from keeptune.report.words import counted
from keeptune.stats import LEVEL

_SHOWN = (Status.MEASURED, Status.NO_EVIDENCE)
_MARKS = {OutcomeStatus.HELD: "same", OutcomeStatus.BROKEN: "changed"}
_STATUS_MARKS = {Status.MEASURED: "same", Status.ERROR: "changed"}


def views_of(report: Report, sections: Sequence[AnySection]) -> list[View]:
    """The view of every section that was measured; of a section that is not there, the view that all have."""
    known = {section.name: section for section in sections}
    views = []
    for record in report.sections:
        if record.status in _SHOWN:
            findings, section = report.select(record.name), known.get(record.name)
            views.append(section.view(record, findings) if section else default_view(record, findings))
    return views


def audit_page(report: Report, sections: Sequence[AnySection]) -> str:
    """One HTML file that needs no network. Nothing in the report is trusted: all is escaped."""
    return render(
        "audit.html",
        report=report,
        level=f"{LEVEL * 100:.0f}\u202f%",
        clauses=[f"{words[0].upper()}{words[1:]}." for words in clauses(report.findings)],
        summary=summary_table(report),
        statuses=None if all(one.status is Status.MEASURED for one in report.sections) else status_table(report),
        views=views_of(report, sections),
        gate=gate_table(report) if report.gate else None,
        lines=list(method_lines(report)),
        facts=list(_facts(report)),
        definitions=definitions([finding.measure for finding in report.findings]),
    )


def summary_table(report: Report) -> Table:
    """Every headline finding."""
    return brief_table("summary", "What was found", [one for one in report.findings if one.headline])


def status_table(report: Report) -> Table:
    """What became of every section."""
    rows = [
        {
            left("section"): text(record.title, record.name),
            left("status"): text(record.status.value, mark=_STATUS_MARKS.get(record.status, "unsure")),
            left("reason"): text(record.reason),
        }
        for record in report.sections
    ]
    return Table.of("sections", "What was measured", rows)


def gate_table(report: Report) -> Table:
    """The bounds, each with its outcome and the numbers that decided it."""
    rows = [
        {
            left("on"): text(f"{outcome.subject} {outcome.part}".strip()),
            left("bound"): text(outcome.bound),
            left("outcome"): text(outcome.status.value, mark=_MARKS.get(outcome.status, "unsure")),
            left("reason"): text(outcome.reason),
        }
        for outcome in report.gate
    ]
    return Table.of("gate", "Bounds and what became of them", rows)


def method_lines(report: Report) -> Iterator[str]:
    """How it was measured, in sentences."""
    for record in report.sections:
        yield from record.methods
    if report.vocabulary:
        yield f"The models’ vocabularies differ: {report.vocabulary}."
    judged = sum(finding.p is not None for finding in report.findings)
    yield f"{RULE} Here {counted(judged, 'finding')} {'was' if judged == 1 else 'were'} judged."
    yield "One tuned model was measured: the intervals do not cover how another training run would differ."


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    models = [("base", report.base)]
    models += [(f"stage {stage}", one) for stage, one in enumerate(report.tuned, 1)]
    if report.kind == "audit":
        models = [("base", report.base), ("tuned", report.tuned[0])]
    for role, model in models:
        yield role.capitalize(), f"{model.source} (fingerprint {model.fingerprint[:16]})"
    if report.commit:
        yield "Commit", report.commit
    yield "Seed", str(report.seed)
    for name, known in (("Machine", report.machine), ("Versions", report.versions)):
        yield name, ", ".join(f"{part} {value}" for part, value in known.items() if value not in (None, ""))
