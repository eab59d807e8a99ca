"""What the lab says of a claim: an interval over seeds, a bound, and the verdict that follows from the two.

The rule, the same for every claim: a claim is that a number lies above or below a bound. It is *confirmed* where the
whole 95 % interval of the number lies on that side, *contradicted* where all of it lies on the other, and *not decided*
otherwise, and always where fewer than three seeds (or other independent units) were run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t

LEVEL = 0.95
LEAST_UNITS = 3
RESAMPLES = 2000
CONFIRMED, CONTRADICTED, NOT_DECIDED = "confirmed", "contradicted", "not decided"
RULE = (
    "The interval is a 95 % one: Student's t over seeds, or what a line says itself. A claim is **confirmed** where "
    "the whole interval lies on the claim's side of its bound, **contradicted** where all of it lies on the other, "
    "else **not decided**, as is everything with fewer than three seeds."
)


class Interval(NamedTuple):
    """A value with its 95 % interval (None where nothing can be said) and the number of units behind it."""

    value: float
    low: float | None
    high: float | None
    units: int


def over_seeds(values: Sequence[float]) -> Interval:
    """The mean of one value a seed, with Student's t interval.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("no seeds")
    mean, units = float(np.mean(values)), len(values)
    if units < 2:
        return Interval(mean, None, None, units)
    half = float(t.ppf((1 + LEVEL) / 2, units - 1) * np.std(values, ddof=1) / np.sqrt(units))
    return Interval(mean, mean - half, mean + half, units)


def share_over_seeds(values: Sequence[float]) -> Interval:
    """As `over_seeds`, of shares: the interval ends at 0 and at 1."""
    mean, low, high, units = over_seeds(values)
    if low is None or high is None:
        return Interval(mean, low, high, units)
    return Interval(mean, max(low, 0.0), min(high, 1.0), units)


def bootstrap(statistic: Any, units: int, seed: int = 0) -> Interval:
    """A statistic of an ensemble's members, with the percentile interval of 2 000 resamples of the members.

    Args:
        statistic: from the indices of members, which may repeat, int64 [units], to a float.
    """
    rng = np.random.default_rng(seed)
    drawn = [statistic(rng.integers(units, size=units)) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(statistic(np.arange(units))), float(low), float(high), units)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A line of the table of verdicts."""

    claim: str
    """What is claimed, in a sentence."""
    paper: str
    """The paper's number, or in words what it shows."""
    measure: str
    """What ours is the number of, with its unit."""
    ours: Interval
    above: float | None = None
    """The claim is that ours lies above this …"""
    below: float | None = None
    """… or below this; one of the two."""

    def __post_init__(self) -> None:
        """Refuse a claim without a bound, or with two."""
        if (self.above is None) == (self.below is None):
            raise ValueError(f"a claim has one bound: {self.claim}")

    @property
    def verdict(self) -> str:
        """The rule at the top of this file."""
        _, low, high, units = self.ours
        if low is None or high is None or units < LEAST_UNITS:
            return NOT_DECIDED
        if self.above is not None:
            holds, fails = low > self.above, high < self.above
        else:
            holds, fails = high < self.below, low > self.below
        return CONFIRMED if holds else CONTRADICTED if fails else NOT_DECIDED

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "ours": self.ours._asdict(), "verdict": self.verdict}
