"""A report: typed, written to report.json and read back from it.

report.json is the list of findings, with what was measured on and how. Its version is 2; a file of an earlier version
is refused in words. Its JSON schema is made from these types (docs/report.schema.json).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Literal

from keeptune.errors import SourceError
from keeptune.report.codec import JsonValue, from_json, schema_of, to_json
from keeptune.report.finding import Finding, UnitOfN, select
from keeptune.storage import write_json, write_text

VERSION: Literal[2] = 2
_AGAIN = "make it anew: keeptune audit BASE TUNED"


class Status(StrEnum):
    """What became of a section."""

    MEASURED = "measured"
    NOT_RUN = "not run"
    NO_EVIDENCE = "not enough evidence"
    ERROR = "error"


class OutcomeStatus(StrEnum):
    """What became of a bound."""

    HELD = "held"
    BROKEN = "broken"
    NOT_SURELY = "beyond the bound, not surely"
    NO_EVIDENCE = "not enough evidence"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that was audited."""

    source: str
    fingerprint: str
    """Of its weights."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Something that findings are about: a text, a task, a set of prompts."""

    name: str
    kind: Literal["text", "task", "prompts"]
    source: str
    n: int
    unit_of_n: UnitOfN
    digest: str
    """sha256 of what the models were given: two reports with the same one have measured on the same."""
    tokens: int | None = None
    """Tokens that are predicted, of a text."""


@dataclass(frozen=True, kw_only=True)
class SectionRecord:
    """What became of one section of the audit."""

    name: str
    title: str
    status: Status
    reason: str = ""
    """Why it was not run, or what went wrong."""
    subjects: list[Subject] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    """How it was measured, in sentences."""
    details: JsonValue = None
    """What the section's own view shows beside findings: passages, answers."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one bound on one finding."""

    subject: str
    part: str
    measure: str
    limit: float
    bound: str
    """In words: `kl ≤ 0.02`."""
    status: OutcomeStatus
    reason: str
    """One line with the numbers."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that an audit found."""

    kind: Literal["audit", "stages"]
    base: Model
    tuned: list[Model]
    """The tuned model; of a continual run its checkpoints in order."""
    vocabulary: str | None
    """How the vocabularies differ, where they do."""
    settings: dict[str, JsonValue]
    sections: list[SectionRecord]
    findings: list[Finding]
    gate: list[Outcome]
    command: str
    commit: str | None
    seed: int
    versions: dict[str, str]
    machine: dict[str, str | int | None]
    version: Literal[2] = VERSION

    def select(self, section: str = "", **wanted: object) -> list[Finding]:
        """Findings of a section whose fields are as wanted: `report.select("drift", measure="kl")`."""
        return select(self.findings, section, **wanted)

    def section(self, name: str) -> SectionRecord | None:
        """What became of a section."""
        return next((record for record in self.sections if record.name == name), None)

    def subject(self, name: str) -> Subject | None:
        """The text, task or set of prompts of this name."""
        return next((subject for record in self.sections for subject in record.subjects if subject.name == name), None)

    def write(self, file: Path) -> None:
        """Write report.json, and the findings beside it as findings.csv, each atomically."""
        write_json(file, to_json(self))
        write_text(file.with_name("findings.csv"), findings_csv(self.findings))


def read_report(file: Path) -> Report:
    """Read report.json.

    Raises:
        SourceError: it is damaged, of another kind, or of another version.
    """
    content = file.read_bytes()
    try:
        found = from_json(dict[str, JsonValue], content)
    except ValueError as error:
        raise SourceError(f"{file} is damaged: it is no JSON object", _AGAIN) from error
    kind, version = found.get("kind"), found.get("version")
    if kind in ("audit", "stages") and version != VERSION:
        written = "an earlier version" if version is None else f"another version ({version!r:.20})"
        raise SourceError(f"{file} is a report of {written} of keeptune, not of version {VERSION}", _AGAIN)
    if kind not in ("audit", "stages"):
        raise SourceError(
            f"{file} is a report of another kind ({kind!r:.40})", "name reports of keeptune audit BASE TUNED"
        )
    try:
        return from_json(Report, content)
    except ValueError as error:
        raise SourceError(f"{file} is damaged, or no report of keeptune audit ({error})", _AGAIN) from error


def report_schema() -> dict[str, JsonValue]:
    """The JSON schema of report.json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "report.json", **schema_of(Report)}


def findings_csv(findings: Sequence[Finding]) -> str:
    """All findings with all digits, a line each; text that a spreadsheet would run is made inert."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    models, ends = ("base", "tuned"), ("value", "low", "high")
    plain = [entry.name for entry in fields(Finding) if entry.name not in models]
    writer.writerow([*plain, *(f"{model}_{end}" for model in models for end in ends)])
    for finding in findings:
        levels = [asdict(level) if (level := getattr(finding, model)) else {} for model in models]
        row = [*(getattr(finding, name) for name in plain), *(level.get(end) for level in levels for end in ends)]
        writer.writerow([inert(value) for value in row])
    return file.getvalue()


Raw = str | int | float | bool | None
# A spreadsheet takes text that starts so for a formula, and a formula may fetch from the network.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def inert(value: Raw) -> Raw:
    """A value for a CSV: text that a spreadsheet would run gets an apostrophe."""
    return "'" + value if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value
