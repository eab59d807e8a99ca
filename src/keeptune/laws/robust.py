"""Robust least squares with weights, and intervals from a bootstrap over runs.

The bootstrap is the Bayesian one (Rubin 1981, doi:10.1214/aos/1176345338): each replicate weighs the runs by
exponential draws, so that no rank ever drops out, and refits. Deviations from the estimate are widened for few runs by
t/z·√(n/(n−1)) (Hesterberg 2015, doi:10.1080/00031305.2015.1089789, the expanded percentile interval).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from scipy import optimize, stats

from keeptune.errors import ConfigError
from keeptune.laws.forms import Floats
from keeptune.laws.rows import Runs
from keeptune.progress import track

_MAD_TO_SD = 1.4826
# Residuals of noiseless data are no scale; below this part of the spread of the losses they count as it.
_LEAST_SCALE = 1e-4


class Band(NamedTuple):
    """A prediction, nats per token, fp64; the ends are None where no interval was asked for or none can be had."""

    value: Floats
    low: Floats | None = None
    """`low` and `high` cover the law itself, the mean over runs of this kind."""
    high: Floats | None = None
    reading_low: Floats | None = None
    """`reading_low` and `reading_high` cover a new reading of a new run."""
    reading_high: Floats | None = None


def solve(
    residuals: Callable[[Floats], Floats],
    jacobian: Callable[[Floats], Floats],
    start: Floats,
    weights: Floats,
    bounds: tuple[Floats, Floats] | None = None,
    *,
    evaluations: int = 200,
    tolerance: float = 1e-8,
) -> Floats:
    """Minimise Σ w·soft_l1(residual²); residuals in units of their own spread.

    Args:
        residuals, jacobian: of the parameters; fp64, [M] and [M, parameters].
        start: inside the bounds, or clipped to them.
        weights: [M], at least 0.
        tolerance: relative change of cost and parameters at which to stop.
    """

    def weighted_soft_l1(z: Floats) -> Floats:
        root = np.sqrt(1 + z)
        return weights * np.stack([2 * (root - 1), 1 / root, -0.5 / root**3])

    low, high = bounds or (np.full(len(start), -np.inf), np.full(len(start), np.inf))
    found = optimize.least_squares(
        residuals,
        np.clip(start, low, high),
        jacobian,
        (low, high),
        x_scale="jac",
        loss=cast(Any, weighted_soft_l1),
        ftol=tolerance,
        xtol=tolerance,
        max_nfev=evaluations,
    )
    return found.x


def scale_of(residuals: Floats, losses: Floats) -> float:
    """Their standard deviation, judged from the median so that outliers do not count, nats per token."""
    spread = _MAD_TO_SD * float(np.median(np.abs(residuals)))
    return max(spread, _LEAST_SCALE * float(np.std(losses)), np.finfo(np.float64).tiny)


def freedom(values: int, parameters: int) -> float:
    """What residuals are multiplied by, for a fit draws its readings towards itself."""
    return math.sqrt(values / max(values - parameters, 1))


def replicates(runs: Runs, count: int, seed: int, refit: Callable[[Floats], Floats]) -> Floats:
    """Refits with random weights of the runs: fp64, [count, parameters]; none where there is one run alone.

    Args:
        refit: from weights of the readings (mean about 1) to parameters.

    Raises:
        ConfigError: a count below 0.
    """
    if count < 0:
        raise ConfigError(f"{count} replicates cannot be made", "give 0 or more")
    names, places = np.unique(runs.run, return_inverse=True)
    if len(names) < 2 or count == 0:
        return np.empty((0, 0))
    generator = np.random.default_rng(seed)
    drawn = []
    with track("Bootstrap over runs", count, "fits") as task:
        for _ in range(count):
            weights = generator.exponential(size=len(names))
            drawn.append(refit((weights / weights.mean())[places]))
            task.advance()
    return np.array(drawn)


def ends(value: Floats, draws: Floats, share: float, runs: int) -> tuple[Floats, Floats]:
    """The interval that covers the truth with probability `share`, from draws along the first axis."""
    tail = (1 + share) / 2
    widening = stats.t.ppf(tail, runs - 1) / stats.norm.ppf(tail) * math.sqrt(runs / (runs - 1))
    low, high = np.quantile(widening * (draws - value), [1 - tail, tail], axis=0)
    return value + low, value + high


def band(value: Floats, draws: Sequence[Floats], residuals: Floats, interval: float | None, runs: int) -> Band:
    """A prediction with the intervals of the law and of a new reading.

    Args:
        value: the prediction.
        draws: those of the replicates, each in the shape of `value`.
        residuals: of the readings that were fitted to, nats per token.
        interval: such as 0.9, or None for no ends.
        runs: how many runs were fitted to.

    Raises:
        ConfigError: an interval outside 0 … 1.
    """
    if interval is None:
        return Band(value)
    if not 0 < interval < 1:
        raise ConfigError(f"an interval cannot cover {interval} of what is to come", "give a share such as 0.9")
    if len(draws) == 0:
        return Band(value)
    low, high = ends(value, np.array(draws), interval, runs)
    below, above = np.quantile(residuals, [(1 - interval) / 2, (1 + interval) / 2])
    # Both are off independently: half-widths add in squares.
    reading_low = value - np.hypot(np.maximum(value - low, 0), below)
    return Band(value, low, high, reading_low, value + np.hypot(np.maximum(high - value, 0), above))


def r_squared(seen: Floats, said: Floats) -> float:
    """1 − the share of the variance that is left."""
    return float(1 - np.sum((seen - said) ** 2) / np.sum((seen - seen.mean()) ** 2))
