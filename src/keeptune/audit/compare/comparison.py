"""What a comparison of audited models holds, and which of two models is surely better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

from keeptune.report.document import Model
from keeptune.report.finding import SIGNIFICANT
from keeptune.report.measures import Better
from keeptune.stats import LEVEL, MIN_DOCUMENTS, Interval, holm, p_apart


class PairVerdict(StrEnum):
    """Which of two models is better on an axis."""

    FIRST = "first better"
    SECOND = "second better"
    OVERLAP = "not distinguishable"
    NO_EVIDENCE = "not enough evidence"


RULES = {
    "better": f"the {LEVEL:.0%} intervals do not overlap, also where all pairs are taken together (Holm), and the "
    "values differ by more than the noise floor",
    PairVerdict.NO_EVIDENCE.value: f"fewer than {MIN_DOCUMENTS} documents or items, or no interval",
    PairVerdict.OVERLAP.value: "otherwise; as the intervals are those of each model alone, a difference may still be "
    "there",
}


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What is read from every report, and which way is better."""

    subject: str
    measure: str
    part: str
    title: str
    better: Better


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a model stands on an axis; 0 where nothing changed."""

    value: float
    low: float | None
    high: float | None
    n: int
    noise_floor: float

    @property
    def interval(self) -> Interval:
        """The value with its interval."""
        return Interval(value=self.value, low=self.low, high=self.high, documents=self.n)

    @property
    def enough(self) -> bool:
        """Whether there are documents enough, and an interval."""
        return self.low is not None and self.n >= MIN_DOCUMENTS


@dataclass(frozen=True, kw_only=True)
class ComparedModel:
    """A model in the comparison."""

    name: str
    report: str
    tuned: Model
    learned: Place
    forgot: Place
    front: bool
    """Whether no other model learned at least as much and forgot no more, and did better at one."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What is sure of two models."""

    first: str
    second: str
    learned: PairVerdict
    forgot: PairVerdict


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Everything that compare.json holds."""

    base: Model
    learned: Axis
    forgot: Axis
    points: list[ComparedModel]
    pairs: list[Pair]
    rules: dict[str, str]
    command: str
    commit: str | None
    seed: int
    versions: dict[str, str]
    machine: dict[str, str | int | None]
    kind: str = "compare"
    version: int = 2


def pareto_front(costs: Sequence[Sequence[float]]) -> list[bool]:
    """Whether no other point is at least as low on every axis and lower on one."""

    def beats(other: Sequence[float], own: Sequence[float]) -> bool:
        return all(a <= b for a, b in zip(other, own, strict=True)) and tuple(other) != tuple(own)

    return [not any(beats(other, own) for other in costs) for own in costs]


def pairs_of(points: Sequence[ComparedModel], learned_better: Better) -> list[Pair]:
    """Which of each two models is better on either axis, by `RULES`, all taken together."""
    pairs = list(combinations(points, 2))
    sides = [(one.learned, two.learned, learned_better) for one, two in pairs]
    sides += [(one.forgot, two.forgot, "lower") for one, two in pairs]
    judged = [place for place, (one, two, _) in enumerate(sides) if one.enough and two.enough]
    adjusted = dict(zip(judged, holm([_p(*sides[place][:2]) for place in judged]), strict=True))
    verdicts = [
        better(one, two, side, adjusted[place]) if place in adjusted else PairVerdict.NO_EVIDENCE
        for place, (one, two, side) in enumerate(sides)
    ]
    return [
        Pair(first=one.name, second=two.name, learned=verdicts[place], forgot=verdicts[place + len(pairs)])
        for place, (one, two) in enumerate(pairs)
    ]


def better(first: Place, second: Place, side: Better, p: float) -> PairVerdict:
    """Which of two places is better, where p says that they differ."""
    if p >= SIGNIFICANT:
        return PairVerdict.OVERLAP
    return PairVerdict.FIRST if (first.value > second.value) == (side == "higher") else PairVerdict.SECOND


def _p(first: Place, second: Place) -> float:
    floor = max(first.noise_floor, second.noise_floor)
    return p_apart(first.interval, second.interval) if abs(first.value - second.value) > floor else 1.0
