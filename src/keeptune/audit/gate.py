"""Bounds on forgetting that a script can rely on: broken only when the interval excludes the bound."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from keeptune.audit.verdict import FLOOR_MEASURES, NO_EVIDENCE
from keeptune.errors import ConfigError
from keeptune.stats import MIN_DOCUMENTS, format_ends

HELD, BROKEN, NOT_SURELY = "held", "broken", "beyond the bound, not surely"

Kind = Literal["text", "task", "prompts"]
MEASURES: dict[Kind, tuple[str, ...]] = {
    "text": FLOOR_MEASURES,
    "task": ("accuracy", "agreement"),
    "prompts": ("refusals",),
}
# Of these a bound says how far they may fall, and agreement is bounded by its change from 1.
_FALLING = ("agreement", "accuracy")
_CHANGE = {"agreement": " − 1", "accuracy": " change", "refusals": " change"}
_EXAMPLES = "write --fail-above kl=0.02, agreement=-0.03, arc:accuracy=-0.05 or NAME:ce_change=0.05"


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The most that a measure may show."""

    name: str
    """Of a text, a task or a set of prompts; "" for every one that has the measure."""
    measure: str
    limit: float
    """Nats per token, or a change of a share: below 0 how far it may fall, else how far it may rise."""

    @property
    def falls(self) -> bool:
        """Whether a fall breaks it, and not a rise."""
        return self.measure in _FALLING or (self.measure == "refusals" and self.limit < 0)

    def __str__(self) -> str:
        return f"{self.measure}{_CHANGE.get(self.measure, '')} {'≥' if self.falls else '≤'} {self.limit:g}"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One number of a report that a bound can be on."""

    name: str
    part: str
    """The format of a task, the detector of refusals; "" for a text."""
    measure: str
    change: tuple[float, float | None, float | None]
    """Value, low and high end; of agreement what it lacks to 1, below 0."""
    count: int
    unit: str
    """What `count` counts and the interval is over."""
    floor: float = 0.0
    """Changes that small come from the arithmetic alone."""

    @property
    def label(self) -> str:
        """What to call it."""
        return f"{self.name} ({self.part})" if self.part else self.name


def parse_bounds(given: Sequence[str], kinds: Mapping[str, Kind]) -> list[Bound]:
    """`["kl=0.02", "wiki:kl=0.05"]` → bounds.

    Args:
        kinds: what each name is that the audit measures.

    Raises:
        ConfigError: an unknown measure or name, no number, a bound given twice, or one that nothing can meet or break.
    """
    bounds: dict[tuple[str, str, bool], Bound] = {}
    for entry in given:
        bound = _parse(entry, kinds)
        key = (bound.name, bound.measure, bound.falls)
        if key in bounds:
            raise ConfigError(f"--fail-above {entry} is given twice", "keep one of them")
        bounds[key] = bound
    return list(bounds.values())


def _parse(entry: str, kinds: Mapping[str, Kind]) -> Bound:
    what, separator, number = entry.partition("=")
    name, colon, measure = what.rpartition(":")
    if colon and name not in kinds:
        raise ConfigError(f"--fail-above {entry}: nothing is called {name!r}", f"name one of {', '.join(kinds)}")
    measurable = {one for kind in ([kinds[name]] if colon else kinds.values()) for one in MEASURES[kind]}
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
    if measure in _FALLING and not -1 <= limit <= 0:
        raise ConfigError(
            f"--fail-above {entry}: {measure} is bounded by how far it falls, a number from -1 to 0",
            f"write {measure}=-0.03 to fail where it fell by surely more than three in a hundred",
        )
    if measure == "refusals" and not -1 <= limit <= 1:
        raise ConfigError(
            f"--fail-above {entry}: refusals are bounded by a change of their share, a number from -1 to 1",
            "write NAME:refusals=-0.05 for how far they may fall, NAME:refusals=0.05 for how far they may rise",
        )
    if measure == "kl" and limit < 0:
        raise ConfigError(f"--fail-above {entry}: no model has a kl below 0", "give a bound of 0 or more")
    return Bound(name=name, measure=measure, limit=limit)


def check(bounds: Sequence[Bound], report: dict[str, Any]) -> list[dict[str, Any]]:
    """What a report says of each bound, for JSON.

    A bound without a name holds for everything that has the measure, unless that has a bound of its own.

    Args:
        report: its texts, noise floor, tasks and safety, as `keeptune audit` writes them.

    Returns:
        For each bound and reading `name`, `part`, `measure`, `limit`, `bound` in words, `status` (`HELD`, `BROKEN`,
        `NOT_SURELY` or `keeptune.audit.verdict.NO_EVIDENCE`) and `reason`, one line with the numbers.
    """
    outcomes = []
    for reading in readings(report):
        matching = [bound for bound in bounds if bound.measure == reading.measure and bound.name in ("", reading.name)]
        own = [bound for bound in matching if bound.name]
        for bound in own or matching:
            status = _status(bound, reading)
            outcome = {**asdict(bound), "name": reading.name, "part": reading.part, "bound": str(bound)}
            outcomes.append({**outcome, "status": status, "reason": _reason(bound, reading, status)})
    return outcomes


def readings(report: dict[str, Any]) -> Iterator[Reading]:
    """Every number of a report that a bound can be on."""
    for name, text in report["texts"].items():
        for measure in FLOOR_MEASURES:
            interval, floor = text["measures"][measure], floor_of(report, name, measure)
            about: dict[str, Any] = {"name": name, "part": "", "count": interval["documents"], "unit": "document"}
            yield Reading(measure=measure, change=_change(interval, measure), floor=floor, **about)
    for name, task in report.get("tasks", {}).items():
        for style, ways in task["formats"].items():
            result = ways[task["headline"]]
            about = {"name": name, "part": style, "count": result["items"], "unit": "item"}
            yield Reading(measure="accuracy", change=_change(result["change"]), **about)
            yield Reading(measure="agreement", change=_change(result["agreement"], "agreement"), **about)
    for name, prompts in report.get("safety", {}).get("sets", {}).items():
        for detector, result in prompts["detectors"].items():
            about = {"name": name, "part": detector, "count": prompts["asked"], "unit": "prompt"}
            yield Reading(measure="refusals", change=_change(result["change"]), **about)


def floor_of(report: dict[str, Any], text: str, measure: str) -> float:
    """The noise floor of a measure on a text, from a report."""
    return report["noise_floor"]["texts"][text]["measures"][measure]["floor"]


def _change(estimate: dict[str, Any], measure: str = "") -> tuple[float, float | None, float | None]:
    offset = 1.0 if measure == "agreement" else 0.0
    low, high = (None if estimate[end] is None else estimate[end] - offset for end in ("low", "high"))
    return float(estimate["value"] - offset), low, high


def _status(bound: Bound, reading: Reading) -> str:
    value, low, high = reading.change
    if low is None or high is None or reading.count < MIN_DOCUMENTS:
        return NO_EVIDENCE
    # As a number that is worse the higher it is.
    value, low, limit = (-value, -high, -bound.limit) if bound.falls else (value, low, bound.limit)
    if value <= limit:
        return HELD
    # A bound under the noise floor would fail models for the rounding of the arithmetic.
    surely_above = max(limit, reading.floor) if limit >= 0 else limit
    return BROKEN if low > surely_above else NOT_SURELY


def _reason(bound: Bound, reading: Reading, status: str) -> str:
    offset = 1.0 if reading.measure == "agreement" else 0.0
    value, low, high = (None if end is None else end + offset for end in reading.change)
    changed = " change" if reading.measure in ("accuracy", "refusals") else ""
    shown = f"{reading.measure}{changed} on {reading.label} is {value:.4g} {format_ends(low, high, '.4g')}".rstrip()
    counted = f"{reading.count} {reading.unit}{'s' * (reading.count != 1)}"
    floor = f" or the noise floor ({reading.floor:.2g})" if reading.floor else ""
    why = {
        HELD: "the bound holds",
        BROKEN: f"the interval over {counted} excludes the bound",
        NOT_SURELY: f"{NOT_SURELY}: the interval over {counted}{floor} reaches it",
        NO_EVIDENCE: f"{NO_EVIDENCE}: {counted}",
    }[status]
    return f"{shown}, bound {bound}: {why}"
