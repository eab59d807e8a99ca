"""A finding: one number with its interval, what it is held against, and its verdict, made where it is measured.

A verdict says on which side of the measure's null (0, no change; for agreement 1) a value surely lies. Its p comes from
an exact test where there is one (McNemar's), else from the interval: the level at which the interval's near end would
reach the null, moved by the noise floor. One p below 0.05 means that the whole 95 % interval lies beyond. Then one rule
for multiple comparisons holds for all judged findings of a report together: Holm's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict, Unpack

from keeptune.report.measures import Better, Measure, Verdict, measure_of
from keeptune.stats import LEVEL, MIN_DOCUMENTS, Interval, holm, p_outside

SIGNIFICANT = 1 - LEVEL
UnitOfN = Literal["document", "item", "prompt", "question"]
RULE = (
    f"A value differs surely where p is below {SIGNIFICANT:g}: exact McNemar for paired items, else the level at which "
    "the interval's end would reach no change moved by the noise floor. All verdicts of a report hold together (Holm). "
    f"{Verdict.NO_EVIDENCE}: fewer than {MIN_DOCUMENTS} documents, items or prompts, or no interval."
)


@dataclass(frozen=True, kw_only=True)
class Level:
    """What one model has of something of which a finding is the change."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, interval: Interval) -> Level:
        """From an interval."""
        return cls(value=interval.value, low=interval.low, high=interval.high)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One number of a report. Made by `found`, which gives it unit, direction and verdict."""

    section: str
    """The section of the audit that measured it."""
    subject: str
    """The text, task, set of prompts, or column."""
    measure: str
    """A name of `keeptune.report.measures.MEASURES`."""
    value: float
    low: float | None
    high: float | None
    """The ends of its 95 % interval; None where there is none."""
    n: int
    unit_of_n: UnitOfN
    """What the interval is over."""
    unit: str
    better: Better | None
    """Which way is better; None where neither is."""
    part: str = ""
    """Of the subject: how a task was asked, by which detector, which class of tokens, after which stage."""
    of: str = ""
    """What the measure is of, such as `harmful prompts`."""
    noise_floor: float = 0.0
    """Changes that small come from rounding alone."""
    verdict: Verdict | None = None
    """None for a number that is not judged."""
    p: float | None = None
    """Two-sided; None where nothing is judged."""
    p_together: float | None = None
    """Corrected by Holm for all judged findings of the report."""
    base: Level | None = None
    tuned: Level | None = None
    """What each model has, where the value is a change."""
    lost: int | None = None
    gained: int | None = None
    """Paired items that only the base, and only the tuned model, has."""
    headline: bool = False
    """Whether it stands in the summary, and in the sentence above it."""

    @property
    def line(self) -> Measure:
        """Its measure's line of the table."""
        return measure_of(self.measure)

    @property
    def label(self) -> str:
        """The subject with its part: `arc (chat)`."""
        return f"{self.subject} ({self.part})" if self.part else self.subject

    @property
    def change(self) -> tuple[float, float | None, float | None]:
        """Value, low and high less the value at which nothing has changed."""
        null = self.line.null or 0.0
        low, high = (None if end is None else end - null for end in (self.low, self.high))
        return self.value - null, low, high

    @property
    def interval(self) -> Interval:
        """The value with its interval."""
        return Interval(value=self.value, low=self.low, high=self.high, documents=self.n)

    @property
    def changed(self) -> bool:
        """Whether it surely differs from no change."""
        return self.verdict in (Verdict.HIGHER, Verdict.LOWER)

    @property
    def worse(self) -> bool:
        """Whether it surely changed the wrong way; of something without a direction, in any way."""
        return self.changed and (self.better is None or self.better != self.verdict.value)  # type: ignore[union-attr]

    @property
    def words(self) -> str:
        """The verdict in words."""
        return self.line.words(self.verdict) if self.verdict else ""


class About(TypedDict, total=False):
    """What else `found` can be told, by the names of `Finding`'s fields."""

    better: Better | None
    """By default the measure's own."""
    part: str
    of: str
    noise_floor: float
    base: Level | None
    tuned: Level | None
    lost: int | None
    gained: int | None
    headline: bool


def found(
    section: str,
    subject: str,
    measure: str,
    interval: Interval,
    unit_of_n: UnitOfN,
    *,
    judged: bool = True,
    beforehand: Verdict | None = None,
    p: float | None = None,
    **about: Unpack[About],
) -> Finding:
    """A finding with its verdict.

    Args:
        judged: whether it gets a verdict; a measure without a null gets none.
        beforehand: the verdict where the section knows that nothing can be told, whatever the numbers: `NO_EVIDENCE` or
            `CANNOT`.
        p: of an exact test; by default that of the interval.
    """
    line, value = measure_of(measure), {"value": interval.value, "low": interval.low, "high": interval.high}
    given: About = {**about, "better": about.get("better") or line.better}
    names = {"section": section, "subject": subject, "measure": measure, "unit": line.unit}
    finding = Finding(**names, **value, n=interval.documents, unit_of_n=unit_of_n, **given)  # type: ignore[arg-type]
    if not judged or line.null is None:
        return finding
    if beforehand or interval.low is None or interval.documents < MIN_DOCUMENTS:
        return replace(finding, verdict=beforehand or Verdict.NO_EVIDENCE)
    floor = finding.noise_floor
    p = p_outside(interval, line.null - floor, line.null + floor) if p is None else p
    return replace(finding, p=p, verdict=_verdict(finding, p))


def together(findings: Sequence[Finding]) -> list[Finding]:
    """The findings of a whole report: verdicts that Holm's rule does not hold are taken back."""
    places = [place for place, finding in enumerate(findings) if finding.p is not None]
    corrected = dict(zip(places, holm([findings[place].p or 0.0 for place in places]), strict=True))
    return [
        replace(finding, p_together=corrected[place], verdict=_verdict(finding, corrected[place]))
        if place in corrected
        else finding
        for place, finding in enumerate(findings)
    ]


def select(findings: Iterable[Finding], section: str = "", **wanted: object) -> list[Finding]:
    """Those of a section (of any, by default) whose fields are as wanted: `select(findings, "drift", measure="kl")`."""
    return [
        finding
        for finding in findings
        if section in ("", finding.section) and all(getattr(finding, name) == value for name, value in wanted.items())
    ]


def _verdict(finding: Finding, p: float) -> Verdict:
    if p >= SIGNIFICANT:
        return Verdict.NO_CHANGE
    return Verdict.HIGHER if finding.change[0] > 0 else Verdict.LOWER
