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
import numpy.typing as npt
from scipy.stats import t

from keeptune import stats
from keeptune.stats import LEVEL, MIN_DOCUMENTS, holm, p_outside

Array = npt.NDArray[np.float64]
LEAST_RUNS = 3


class Verdict(StrEnum):
    """What the measurements say of a claim. The value is the word in tables and in verdicts.json."""

    CONFIRMED = "confirmed"
    """The whole interval lies on the claim's side of the bound, also after Holm's adjustment (`judged`)."""
    CONTRADICTED = "contradicted"
    """The whole interval lies on the other side, also after Holm's adjustment."""
    NOT_DECIDED = "not decided"
    """The interval contains the bound, or may by chance, or there are only two training runs or no interval."""
    ONE_RUN = "one run"
    """One training run: an interval over documents or items says nothing about other runs."""
    NOT_TESTED = "not tested"
    """The experiment differs from the paper's in what the claim is about, or the bound was set after the rows had been
    read; `Claim.untested` says how."""


RULE = (
    "Intervals are 95 %: Student's t over seeds, unless the line says otherwise. A bootstrap is studentised, and over "
    f"fewer than {MIN_DOCUMENTS} units it has no interval. Runs is the number of independent training runs behind the "
    "number. A claim is **confirmed** if the whole interval lies on the claim's side of its bound, and "
    "**contradicted** if the whole interval lies on the other side. Both need p < .05 after Holm's adjustment of the "
    "p-values of one table; p inverts the interval. A claim is **not decided** if the interval contains the "
    "bound, if p is .05 or more after the adjustment (the line says so), or if there are only two runs. **One run** "
    "means a single training run, and no verdict. **Not tested** means that our set-up differs from the paper's in "
    "what the claim is about, or that its bound was set after the rows had been read. **Not run yet** means that an "
    "experiment is designed, with its bounds, and has no rows."
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


def over_units(found: stats.Interval) -> Interval:
    """An interval of keeptune's bootstrap over documents, items or members; without ends if they are too few."""
    if found.documents < MIN_DOCUMENTS:
        return Interval(found.value, None, None, found.documents)
    return Interval(found.value, found.low, found.high, found.documents)


def bootstrap(statistic: Any, units: int) -> Interval:
    """Any smooth statistic of an ensemble's members, by the bootstrap of the members' influence on it.

    The influence of a member is what the jackknife says. For a ratio of sums `keeptune.stats.bootstrap_ratio` covers
    better, since it follows the ratio in every resample.

    Args:
        statistic: from the indices of members, int64, to a float.
    """
    members = np.arange(units)
    value, without = statistic(members), np.array([statistic(np.delete(members, place)) for place in members])
    influence = (units - 1) * (without.mean() - without)
    return over_units(stats.bootstrap_ratio(value + influence, np.ones(units)))


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
    def p(self) -> float | None:
        """Two-sided p of the bound, by inverting the interval; None where no verdict is possible."""
        _, low, high, units = self.ours
        if self.verdict in (Verdict.NOT_TESTED, Verdict.ONE_RUN) or self.counted_runs < LEAST_RUNS or low is None:
            return None
        bound = self.above if self.above is not None else self.below or 0.0
        return p_outside(stats.Interval(value=self.ours.value, low=low, high=high, documents=units), bound, bound)

    @property
    def counted_runs(self) -> int:
        """Independent training runs behind the number."""
        return self.ours.units if self.runs is None else self.runs

    @property
    def verdict(self) -> Verdict:
        """The verdict by the interval of this claim alone; `judged` adjusts it for the number of claims."""
        _, low, high, _ = self.ours
        runs = self.counted_runs
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
        return {**asdict(self), "ours": self.ours._asdict(), "runs": self.counted_runs, "verdict": self.verdict}


def judged(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """The claims of one table with their verdicts, for JSON.

    `p` is None where no verdict is possible. `p_holm` is p adjusted for the number of the others, `comparisons`. What
    the interval alone would decide needs `p_holm` below .05.
    """
    tested = [claim.p for claim in claims if claim.p is not None]
    adjusted = iter(holm(tested))
    lines = []
    for claim in claims:
        line = {**claim.as_dict(), "p": claim.p, "p_holm": None if claim.p is None else next(adjusted)}
        if line["p_holm"] is not None and line["p_holm"] >= 1 - LEVEL:
            line["verdict"] = Verdict.NOT_DECIDED
        lines.append({**line, "comparisons": len(tested)})
    return lines


def claim_over_seeds(claim: str, measure: str, values: Sequence[float], **given: Any) -> Claim | None:
    """A claim about the mean of one value per seed; None without values, as in grids that are finished in part."""
    return Claim(claim=claim, measure=measure, ours=over_seeds(values), **given) if len(values) else None


def measured(*claims: Claim | None) -> list[Claim]:
    """The claims that there are measurements for."""
    return [claim for claim in claims if claim is not None]
