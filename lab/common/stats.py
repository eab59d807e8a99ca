"""Claims of the lab: a measured interval, a bound, and the verdict that follows from the two.

A claim says that a number lies above or below a bound. `Verdict` lists the possible verdicts and the rule for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t

LEVEL = 0.95
LEAST_RUNS = 3
RESAMPLES = 2000


class Verdict(StrEnum):
    """What the measurements say of a claim. The value is the word in tables and in verdicts.json."""

    CONFIRMED = "confirmed"
    """The whole interval lies on the claim's side of the bound."""
    CONTRADICTED = "contradicted"
    """The whole interval lies on the other side."""
    NOT_DECIDED = "not decided"
    """The interval contains the bound, or there are only two training runs."""
    ONE_RUN = "one run"
    """One training run: an interval over documents or items says nothing about other runs."""
    NOT_TESTED = "not tested"
    """The experiment differs from the paper's in what the claim is about; `Claim.untested` says how."""


RULE = (
    "Intervals are 95 %: Student's t over seeds, unless the line says otherwise. Runs is the number of independent "
    "training runs behind the number. A claim is **confirmed** if the whole interval lies on the claim's side of its "
    "bound, and **contradicted** if the whole interval lies on the other side. It is **not decided** if the interval "
    "contains the bound, or if there are only two runs. **One run** means a single training run, and no verdict. "
    "**Not tested** means that our set-up differs from the paper's in what the claim is about."
)


class Interval(NamedTuple):
    """A value with its 95 % interval (None where nothing can be said) and the number of units behind it."""

    value: float
    low: float | None
    high: float | None
    units: int


def over_seeds(values: Sequence[float], least: float = -math.inf, most: float = math.inf) -> Interval:
    """The mean of one value per seed, with Student's t interval.

    Args:
        least, most: the range of the quantity, at which the interval ends: 0 and 1 for shares, 1 above for R².

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("no seeds")
    mean, units = float(np.mean(values)), len(values)
    if units < 2:
        return Interval(mean, None, None, units)
    half = float(t.ppf((1 + LEVEL) / 2, units - 1) * np.std(values, ddof=1) / np.sqrt(units))
    return Interval(mean, max(mean - half, least), min(mean + half, most), units)


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
    """A row of the tables of claims."""

    claim: str
    """The claim, as a sentence."""
    paper: str | None = None
    """The paper's number, or what its figure shows; None for a finding of our own."""
    measure: str
    """What was measured, with its unit."""
    ours: Interval
    above: float | None = None
    """The claim holds if the measured number lies above this."""
    below: float | None = None
    """The claim holds if the measured number lies below this. Give `above` or `below`."""
    runs: int | None = None
    """Independent training runs behind the number; by default the units of the interval."""
    untested: str | None = None
    """Why the experiment does not test the claim; the verdict is then `NOT_TESTED`."""

    def __post_init__(self) -> None:
        """Validate the bounds.

        Raises:
            ValueError: no bound, or two.
        """
        if (self.above is None) == (self.below is None):
            raise ValueError(f"a claim has one bound: {self.claim}")

    @property
    def verdict(self) -> Verdict:
        """The verdict, by the rules in `Verdict`."""
        _, low, high, units = self.ours
        runs = units if self.runs is None else self.runs
        if self.untested is not None:
            return Verdict.NOT_TESTED
        if runs < 2:
            return Verdict.ONE_RUN
        if low is None or high is None or runs < LEAST_RUNS:
            return Verdict.NOT_DECIDED
        above, below = self.above, self.below
        holds = low > above if above is not None else below is not None and high < below
        fails = high < above if above is not None else below is not None and low > below
        return Verdict.CONFIRMED if holds else Verdict.CONTRADICTED if fails else Verdict.NOT_DECIDED

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        runs = self.ours.units if self.runs is None else self.runs
        return {**asdict(self), "ours": self.ours._asdict(), "runs": runs, "verdict": self.verdict}


def claim_over_seeds(claim: str, measure: str, values: Sequence[float], **given: Any) -> Claim | None:
    """A claim about the mean of one value per seed; None without values, as in grids that are finished in part."""
    return Claim(claim=claim, measure=measure, ours=over_seeds(values), **given) if len(values) else None


def measured(*claims: Claim | None) -> list[Claim]:
    """The claims that there are measurements for."""
    return [claim for claim in claims if claim is not None]
