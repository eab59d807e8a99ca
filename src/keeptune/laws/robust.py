"""Robust least squares, and intervals from a bootstrap over runs.

The bootstrap is the wild one for clusters: each replicate adds to what the law says the residuals of every run, all
times one random number of mean 0 and variance 1, and refits. No rank ever drops out, and a run's readings stay as alike
as they are. The number is one of six (Webb 2023, doi:10.1111/caje.12661), for with few runs two signs alone would
repeat. Residuals are first freed of what the fit hides of them, and deviations from the estimate are widened by t/z
with the degrees of freedom of what is predicted (`keeptune.laws.joint.leverage`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from keeptune.errors import ConfigError
from keeptune.laws.forms import Floats
from keeptune.log import track

_MAD_TO_SD = 1.4826
# Residuals of noiseless data are no scale; below this part of the spread of the losses they count as it.
_LEAST_SCALE = 1e-4
# Mean 0, variance 1.
_WEBB = np.sqrt([0.5, 1.0, 1.5, 0.5, 1.0, 1.5]) * [-1, -1, -1, 1, 1, 1]


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
    bounds: tuple[Floats, Floats] | None = None,
    *,
    evaluations: int = 200,
    tolerance: float = 1e-8,
) -> Floats:
    """Minimise Σ soft_l1(residual²); residuals in units of their own spread.

    Args:
        residuals, jacobian: of the parameters; fp64, [M] and [M, parameters].
        start: inside the bounds, or clipped to them.
        tolerance: relative change of cost and parameters at which to stop.
    """
    low, high = bounds or (np.full(len(start), -np.inf), np.full(len(start), np.inf))
    found = optimize.least_squares(
        residuals,
        np.clip(start, low, high),
        jacobian,
        (low, high),
        x_scale="jac",
        loss="soft_l1",
        ftol=tolerance,
        xtol=tolerance,
        max_nfev=evaluations,
    )
    return found.x


def root_weights(residuals: Floats) -> Floats:
    """Roots of the weights with which soft_l1 counts residuals, in units of their spread."""
    return (1 + residuals**2) ** -0.25


def scale_of(residuals: Floats, losses: Floats) -> float:
    """Their standard deviation, judged from the median so that outliers do not count, nats per token."""
    spread = _MAD_TO_SD * float(np.median(np.abs(residuals)))
    return max(spread, _LEAST_SCALE * float(np.std(losses)), np.finfo(np.float64).tiny)


def replicates(run: NDArray[np.int64], count: int, seed: int, refit: Callable[[Floats], Floats]) -> Floats:
    """Refits with the residuals of whole runs at random: fp64, [count, parameters]; none where there is one run alone.

    Args:
        run: [M], which run each residual is of.
        refit: from factors of the residuals, [M], to parameters.

    Raises:
        ConfigError: a count or a seed below 0.
    """
    if count < 0:
        raise ConfigError(f"{count} replicates cannot be made", "give 0 or more")
    if seed < 0:
        raise ConfigError(f"{seed} is no seed", "give 0 or more")
    names, places = np.unique(run, return_inverse=True)
    if len(names) < 2 or count == 0:
        return np.empty((0, 0))
    generator = np.random.default_rng(seed)
    drawn = []
    with track("Bootstrap over runs", count, "fits") as task:
        for _ in range(count):
            drawn.append(refit(generator.choice(_WEBB, size=len(names))[places]))
            task.advance()
    return np.array(drawn)


def ends(value: Floats, draws: Floats, share: float, freedom: Floats) -> tuple[Floats, Floats]:
    """The interval that covers the truth with probability `share`, from draws along the first axis.

    Args:
        freedom: degrees of freedom, in the shape of `value`.
    """
    tail = (1 + share) / 2
    widening = stats.t.ppf(tail, freedom) / stats.norm.ppf(tail)
    # Of K draws, the i-th lies at i/(K + 1) of what they are drawn from; the default quantile would sit further in.
    low, high = np.quantile(draws - value, [1 - tail, tail], axis=0, method="weibull")
    return value + widening * low, value + widening * high


def band(value: Floats, draws: Sequence[Floats], residuals: Floats, interval: float | None, freedom: Floats) -> Band:
    """A prediction with the intervals of the law and of a new reading.

    Args:
        value: the prediction.
        draws: those of the replicates, each in the shape of `value`.
        residuals: of the readings that were fitted to, nats per token.
        interval: such as 0.9, or None for no ends.
        freedom: degrees of freedom of the prediction, in the shape of `value`.

    Raises:
        ConfigError: an interval outside 0 … 1.
    """
    if interval is None:
        return Band(value)
    if not 0 < interval < 1:
        raise ConfigError(f"an interval cannot cover {interval} of what is to come", "give a share such as 0.9")
    if len(draws) == 0:
        return Band(value)
    low, high = ends(value, np.array(draws), interval, freedom)
    below, above = np.quantile(residuals, [(1 - interval) / 2, (1 + interval) / 2])
    # Both are off independently: half-widths add in squares.
    reading_low = value - np.hypot(np.maximum(value - low, 0), below)
    return Band(value, low, high, reading_low, value + np.hypot(np.maximum(high - value, 0), above))


def r_squared(seen: Floats, said: Floats) -> float:
    """1 − the share of the variance that is left."""
    return float(1 - np.sum((seen - said) ** 2) / np.sum((seen - seen.mean()) ** 2))
