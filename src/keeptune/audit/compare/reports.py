"""Several audited models of one base in one picture: what each learned against what it forgot.

Reports are taken together only where they measured the same rows. Their intervals are those of each model alone, over
the same documents: two models whose intervals overlap may still differ, but these reports do not show it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keeptune.audit.compare.comparison import RULES, Axis, ComparedModel, Comparison, Place, pairs_of, pareto_front
from keeptune.audit.compare.page import compare_page
from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.report.codec import to_json
from keeptune.report.document import Report, read_report
from keeptune.report.finding import Finding
from keeptune.report.words import short_names
from keeptune.storage import write_json, write_text
from keeptune.system import provenance

REPORT, COMPARISON, PAGE = "report.json", "compare.json", "compare.html"
_NAMED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class _Read:
    """A report and where it came from."""

    path: str
    name: str | None
    """What the user calls it."""
    report: Report


def compare(reports: Sequence[str], *, learned: str, forgot: str = "self:kl", out: Path) -> Comparison:
    """Put audited models side by side and write `<out>/compare.json` and `compare.html`.

    Args:
        reports: each a report.json, or the folder it is in, or `NAME=` one of these.
        learned: the text of the new task, of which the change of loss is read, or a task, of which the change of
            accuracy; `TASK:chat` for the questions as a chat turn; or any other subject that has a headline.
        forgot: `TEXT:MEASURE`, with `kl` where no measure is named.

    Raises:
        ConfigError: fewer than two reports, names that are not unique, or an axis that they do not have.
        SourceError: no report, a damaged one, one of another kind or base, or one that read other rows.
    """
    if len(reports) < 2:
        raise ConfigError("a comparison needs two reports or more", "name the report.json of every audited model")
    read = read_reports(reports)
    axes = _learned_axis(learned, read[0]), _forgot_axis(forgot, read[0])
    for axis in axes:
        _require_same_rows(axis, read)
    places = [tuple(_place(axis, one, cost=number == 1) for number, axis in enumerate(axes)) for one in read]
    sign = -1 if axes[0].better == "higher" else 1
    front = pareto_front([[sign * learned.value, forgot.value] for learned, forgot in places])
    points = [
        ComparedModel(name=name, report=one.path, tuned=one.report.tuned[0], learned=of[0], forgot=of[1], front=best)
        for name, one, of, best in zip(_names(read), read, places, front, strict=True)
    ]
    comparison = Comparison(
        base=read[0].report.base,
        learned=axes[0],
        forgot=axes[1],
        points=points,
        pairs=pairs_of(points, axes[0].better),
        rules=RULES,
        **provenance(0),
    )
    write_json(out / COMPARISON, to_json(comparison))
    write_text(out / PAGE, compare_page(comparison))
    return comparison


def read_reports(given: Sequence[str]) -> list[_Read]:
    """Read `report.json`, a folder that holds one, or `NAME=` either.

    Raises:
        SourceNotFound: there is none.
        SourceError: one is damaged, of another kind, or of another base than the first.
    """
    read = [_read(entry) for entry in given]
    first = read[0]
    for other in read[1:]:
        if other.report.base.fingerprint != first.report.base.fingerprint:
            raise SourceError(
                f"{other.path} is of another base ({other.report.base.source}) than {first.path}",
                "compare models that were tuned from one base",
            )
    return read


def _read(entry: str) -> _Read:
    named = None if Path(entry).expanduser().exists() else _NAMED.fullmatch(entry)
    name, path = (named[1], Path(named[2]).expanduser()) if named else (None, Path(entry).expanduser())
    file = path / REPORT if path.is_dir() else path
    if not file.is_file():
        raise SourceNotFound(f"no report at {file}", "name the report.json that keeptune audit wrote, or its folder")
    report = read_report(file)
    if report.kind != "audit":
        kind = f"{report.kind!r:.40}"
        raise SourceError(f"{file} is a report of another kind ({kind})", "name reports of keeptune audit BASE TUNED")
    return _Read(path=str(file), name=name, report=report)


def _learned_axis(given: str, first: _Read) -> Axis:
    name, _, part = given.partition(":")
    for finding in first.report.findings:
        learns = finding.headline and finding.better and finding.measure != "kl"
        if learns and finding.subject == name and (finding.part == part or not part):
            return _axis(finding)
    raise ConfigError(
        f"--learned {given}: {first.path} has no such text or task", f"name one of {', '.join(_subjects(first))}"
    )


def _forgot_axis(given: str, first: _Read) -> Axis:
    name, _, measure = given.partition(":")
    found = first.report.select(subject=name, measure=measure or "kl")
    if not found or found[0].better is None or found[0].section != "drift" or found[0].line.null is None:
        known = dict.fromkeys(one.measure for one in first.report.select("drift") if one.line.null is not None)
        texts = dict.fromkeys(one.subject for one in first.report.select("drift"))
        raise ConfigError(
            f"--forgot {given}: {first.path} has no such text, or that is no measure of forgetting",
            f"write TEXT:MEASURE with one of {', '.join(texts)} and of {', '.join(known)}",
        )
    return _axis(found[0])


def _axis(finding: Finding) -> Axis:
    title = f"{finding.line.label} on {finding.label}"
    if finding.measure == "agreement":
        title = f"1 − {title}"
    return Axis(
        subject=finding.subject,
        measure=finding.measure,
        part=finding.part,
        title=f"{title}, {finding.unit}" if finding.unit != "share" else title,
        better=finding.better or "lower",
    )


def _subjects(read: _Read) -> list[str]:
    return list(dict.fromkeys(one.subject for one in read.report.findings if one.headline))


def _finding(axis: Axis, read: _Read) -> Finding | None:
    found = read.report.select(subject=axis.subject, measure=axis.measure, part=axis.part)
    return found[0] if found else None


def _require_same_rows(axis: Axis, read: Sequence[_Read]) -> None:
    """What the models were given has to be the same."""
    subject = read[0].report.subject(axis.subject)
    for other in read[1:]:
        own = other.report.subject(axis.subject)
        if own is None:
            raise SourceError(f"{other.path} did not measure {axis.subject}", f"audit that model on {axis.subject} too")
        if subject is None or own.digest != subject.digest:
            raise SourceError(
                f"{other.path} read other rows of {axis.subject} than {read[0].path}",
                "audit both models with the same texts, --docs, --max-length, --windows, --items and --seed",
            )
        if _finding(axis, other) is None:
            raise SourceError(
                f"{other.path} did not ask {axis.subject} as {axis.part or axis.measure}",
                "audit both with the same tokenizer",
            )


def _place(axis: Axis, read: _Read, *, cost: bool) -> Place:
    """Of an axis of costs a place is the worse the higher it is, whatever the measure."""
    (finding,) = read.report.select(subject=axis.subject, measure=axis.measure, part=axis.part)
    value, low, high = finding.change
    if cost and axis.better == "higher":
        value, low, high = -value, None if high is None else -high, None if low is None else -low
    return Place(value=value, low=low, high=high, n=finding.n, noise_floor=finding.noise_floor)


def _names(read: Sequence[_Read]) -> list[str]:
    shortened = short_names([one.report.tuned[0].source for one in read])
    names = [one.name or short for one, short in zip(read, shortened, strict=True)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two models are called {name}", "name the reports: NAME=REPORT")
    return names
