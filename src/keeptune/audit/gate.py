"""Bounds on forgetting that a script can rely on: broken only when the interval excludes the bound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from keeptune.errors import ConfigError
from keeptune.report.document import Outcome, OutcomeStatus, Report, Status
from keeptune.report.finding import Finding
from keeptune.report.measures import SHARE, Measure, measure_of
from keeptune.report.words import counted
from keeptune.stats import MIN_DOCUMENTS, format_ends

_EXAMPLES = "write --fail-above kl=0.02, agreement=-0.03, arc:accuracy=-0.05 or NAME:ce_change=0.05"


class Bounded(Protocol):
    """What a gate has to know of a section."""

    name: str
    bounds: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The most that a measure may show."""

    name: str
    """Of a text, a task or a set of prompts; "" for every one that has the measure."""
    measure: str
    limit: float
    """Nats per token, or a change of a share: below 0 how far it may fall, else how far it may rise."""

    @property
    def line(self) -> Measure:
        """The measure's line of the table."""
        return measure_of(self.measure)

    @property
    def falls(self) -> bool:
        """Whether a fall breaks it, and not a rise."""
        return self.line.bound == "fall" or (self.line.bound == "either" and self.limit < 0)

    def __str__(self) -> str:
        null = self.line.null or 0.0
        change = f" − {null:g}" if null else " change" if self.line.unit == SHARE else ""
        return f"{self.measure}{change} {'≥' if self.falls else '≤'} {self.limit:g}"


def parse_bounds(given: Sequence[str], named: Mapping[str, Bounded]) -> list[Bound]:
    """`["kl=0.02", "wiki:kl=0.05"]` → bounds.

    Args:
        named: what each name is that the audit measures: its section.

    Raises:
        ConfigError: an unknown measure or name, no number, a bound given twice, or one that nothing can meet or break.
    """
    bounds: dict[tuple[str, str, bool], Bound] = {}
    for entry in given:
        bound = _parse(entry, named)
        key = (bound.name, bound.measure, bound.falls)
        if key in bounds:
            raise ConfigError(f"--fail-above {entry} is given twice", "keep one of them")
        bounds[key] = bound
    return list(bounds.values())


def _parse(entry: str, named: Mapping[str, Bounded]) -> Bound:
    what, separator, number = entry.partition("=")
    name, colon, measure = what.rpartition(":")
    if colon and name not in named:
        raise ConfigError(f"--fail-above {entry}: nothing is called {name!r}", f"name one of {', '.join(named)}")
    measurable = {one for section in ([named[name]] if colon else named.values()) for one in section.bounds}
    if not separator or measure not in measurable:
        raise ConfigError(
            f"--fail-above {entry} names no measure that is taken ({', '.join(sorted(measurable))})", _EXAMPLES
        )
    try:
        limit = float(number)
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit):
        raise ConfigError(f"--fail-above {entry}: {number!r} is no number", _EXAMPLES)
    _check_limit(entry, measure_of(measure), limit)
    return Bound(name=name, measure=measure, limit=limit)


def _check_limit(entry: str, line: Measure, limit: float) -> None:
    """Refuse a limit that nothing can meet or break."""
    if line.bound == "fall" and line.unit == SHARE and not -1 <= limit <= 0:
        raise ConfigError(
            f"--fail-above {entry}: {line.name} is bounded by how far it falls, a number from -1 to 0",
            f"write {line.name}=-0.03 to fail where it fell by surely more than three in a hundred",
        )
    if line.bound != "fall" and line.unit == SHARE and not -1 <= limit <= 1:
        raise ConfigError(
            f"--fail-above {entry}: {line.name} are bounded by a change of their share, a number from -1 to 1",
            f"write NAME:{line.name}=0.05 for how far they may rise"
            + (f", NAME:{line.name}=-0.05 for how far they may fall" if line.bound == "either" else ""),
        )
    if line.least is not None and limit < line.least:
        raise ConfigError(f"--fail-above {entry}: no model has a {line.name} below 0", "give a bound of 0 or more")


def check(bounds: Sequence[Bound], findings: Sequence[Finding], named: Mapping[str, Bounded]) -> list[Outcome]:
    """What becomes of each bound on each finding that it is on.

    A bound without a name holds for everything that has the measure, unless that has a bound of its own.

    Args:
        named: the section of each name, which says what of it can be bounded.
    """
    outcomes, met = [], set[Bound]()
    for finding in findings:
        section = named.get(finding.subject)
        if section is None or finding.section != section.name or finding.measure not in section.bounds:
            continue
        if not finding.headline and any(one.headline for one in findings if _same(one, finding)):
            continue
        matching = [one for one in bounds if one.measure == finding.measure and one.name in ("", finding.subject)]
        met.update(matching)
        outcomes += [_outcome(bound, finding) for bound in [one for one in matching if one.name] or matching]
    return outcomes + [_unmet(bound) for bound in bounds if bound not in met]


def broken(report: Report, *, strict: bool = False) -> list[str]:
    """Why the report fails: broken bounds, and in strict mode sections that failed or have too little evidence."""
    reasons = [outcome.reason for outcome in report.gate if outcome.status is OutcomeStatus.BROKEN]
    if strict:
        unsure = [one for one in report.sections if one.status in (Status.ERROR, Status.NO_EVIDENCE)]
        reasons += [f"{one.name}: {one.status.value}{f' ({one.reason})' if one.reason else ''}" for one in unsure]
        few = [one for one in report.gate if one.status is OutcomeStatus.NO_EVIDENCE]
        reasons += [outcome.reason for outcome in few]
    return reasons


def _same(one: Finding, other: Finding) -> bool:
    return (one.section, one.subject, one.measure) == (other.section, other.subject, other.measure)


def _outcome(bound: Bound, finding: Finding) -> Outcome:
    status = _status(bound, finding)
    return Outcome(
        subject=finding.subject,
        part=finding.part,
        measure=finding.measure,
        limit=bound.limit,
        bound=str(bound),
        status=status,
        reason=_reason(bound, finding, status),
    )


def _unmet(bound: Bound) -> Outcome:
    """A bound on what could not be measured."""
    status = OutcomeStatus.NO_EVIDENCE
    reason = f"bound {bound}{f' on {bound.name}' if bound.name else ''}: {status.value}: nothing was measured"
    return Outcome(
        subject=bound.name,
        part="",
        measure=bound.measure,
        limit=bound.limit,
        bound=str(bound),
        status=status,
        reason=reason,
    )


def _status(bound: Bound, finding: Finding) -> OutcomeStatus:
    value, low, high = finding.change
    if low is None or high is None or finding.n < MIN_DOCUMENTS:
        return OutcomeStatus.NO_EVIDENCE
    # As a number that is worse the higher it is.
    value, low, limit = (-value, -high, -bound.limit) if bound.falls else (value, low, bound.limit)
    if value <= limit:
        return OutcomeStatus.HELD
    # A bound under the noise floor would fail models for the rounding of the arithmetic.
    surely_above = max(limit, finding.noise_floor) if limit >= 0 else limit
    return OutcomeStatus.BROKEN if low > surely_above else OutcomeStatus.NOT_SURELY


def _reason(bound: Bound, finding: Finding, status: OutcomeStatus) -> str:
    changed = " change" if finding.line.unit == SHARE and finding.line.null == 0.0 else ""
    ends = format_ends(finding.low, finding.high, ".4g")
    shown = f"{finding.measure}{changed} on {finding.label} is {finding.value:.4g} {ends}".rstrip()
    of_n = counted(finding.n, finding.unit_of_n)
    floor = f" or the noise floor ({finding.noise_floor:.2g})" if finding.noise_floor else ""
    why = {
        OutcomeStatus.HELD: "the bound holds",
        OutcomeStatus.BROKEN: f"the interval over {of_n} excludes the bound",
        OutcomeStatus.NOT_SURELY: f"{status.value}: the interval over {of_n}{floor} reaches it",
        OutcomeStatus.NO_EVIDENCE: f"{status.value}: {of_n}",
    }[status]
    return f"{shown}, bound {bound}: {why}"
