"""Robust least squares, and intervals from a bootstrap over runs.

This is the wild cluster bootstrap, with runs as clusters. Each replicate multiplies the residuals of every run by one
random number of mean 0 and variance 1, adds them to the fitted values, and refits. No rank ever drops out, and the
correlation within a run is kept. The weights take six values (Webb 2023, doi:10.1111/caje.12661), because with few runs
two signs alone would repeat. The residuals are first corrected for leverage, and deviations from the estimate are
widened by t/z with the degrees of freedom of the prediction (`keeptune.laws.joint.leverage`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from keeptune.errors import ConfigError
from keeptune.laws.forms import Floats
from keeptune.log import track

_MAD_TO_SD = 1.4826
# A lower bound of the scale, as a share of the spread of the losses: noiseless data have no residuals.
_LEAST_SCALE = 1e-4
# Mean 0, variance 1.
_WEBB = np.sqrt([0.5, 1.0, 1.5, 0.5, 1.0, 1.5]) * [-1, -1, -1, 1, 1, 1]


class Band(NamedTuple):
    """A prediction, nats per token, fp64. The ends are None if no interval was asked for or none can be computed."""

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
    """Minimize Σ soft_l1(residual²), with residuals in units of their own spread.

    Args:
        residuals, jacobian: functions of the parameters; fp64, [M] and [M, parameters].
        start: is clipped to the bounds.
        tolerance: relative change of cost and parameters at which to stop.
    """
    low, high = bounds or (np.full(len(start), -np.inf), np.full(len(start), np.inf))
    limits: dict[str, Any] = {"ftol": tolerance, "xtol": tolerance, "max_nfev": evaluations}
    begin = np.clip(start, low, high)
    return optimize.least_squares(residuals, begin, jacobian, (low, high), x_scale="jac", loss="soft_l1", **limits).x


def root_weights(residuals: Floats) -> Floats:
    """Square roots of the weights that soft_l1 gives to residuals, which are in units of their spread."""
    return (1 + residuals**2) ** -0.25


def scale_of(residuals: Floats, losses: Floats) -> float:
    """The standard deviation of the residuals, estimated from the median absolute deviation, nats per token."""
    spread = _MAD_TO_SD * float(np.median(np.abs(residuals)))
    return max(spread, _LEAST_SCALE * float(np.std(losses)), np.finfo(np.float64).tiny)


def replicates(run: NDArray[np.int64], count: int, seed: int, refit: Callable[[Floats], Floats]) -> Floats:
    """Parameters of the bootstrap replicates: fp64, [count, parameters]; empty if there is only one run.

    Args:
        run: [M], the run of each residual.
        refit: from factors of the residuals, [M], to parameters.

    Raises:
        ConfigError: a count or a seed below 0.
    """
    for name, given in (("number of replicates", count), ("seed", seed)):
        if given < 0:
            raise ConfigError(f"the {name} is {given}", "give 0 or more")
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
    """The interval that covers the truth with probability `share`, from replicates along the first axis.

    `freedom` has the degrees of freedom, in the shape of `value`.
    """
    tail = (1 + share) / 2
    widening = stats.t.ppf(tail, freedom) / stats.norm.ppf(tail)
    # The i-th of K sorted draws estimates the quantile i/(K + 1) (weibull); numpy's default would be too narrow.
    low, high = np.quantile(draws - value, [1 - tail, tail], axis=0, method="weibull")
    return value + widening * low, value + widening * high


def thinned(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` places spread evenly over 0 … count − 1, both ends included."""
    return np.unique(np.linspace(0, count - 1, most).astype(np.int64))


def check_coverage(interval: float) -> None:
    """Raise `ConfigError` for a coverage that is not between 0 and 1."""
    if not 0 < interval < 1:
        raise ConfigError(f"the coverage of the interval is {interval}", "give a share between 0 and 1, such as 0.9")


def band(value: Floats, draws: Sequence[Floats], residuals: Floats, interval: float | None, freedom: Floats) -> Band:
    """A prediction with the intervals of the law and of a new reading.

    Args:
        value: the prediction.
        draws: predictions of the replicates, each in the shape of `value`.
        residuals: of the fitted readings, nats per token.
        interval: such as 0.9, or None for no ends.
        freedom: degrees of freedom of the prediction, in the shape of `value`.

    Raises:
        ConfigError: an interval outside 0 … 1.
    """
    if interval is not None:
        check_coverage(interval)
    if interval is None or len(draws) == 0:
        return Band(value)
    low, high = ends(value, np.array(draws), interval, freedom)
    below, above = np.quantile(residuals, [(1 - interval) / 2, (1 + interval) / 2])
    # Both errors are independent: half-widths add in squares.
    reading_low = value - np.hypot(np.maximum(value - low, 0), below)
    return Band(value, low, high, reading_low, value + np.hypot(np.maximum(high - value, 0), above))


def r_squared(observed: Floats, predicted: Floats) -> float:
    """The coefficient of determination R²."""
    return float(1 - np.sum((observed - predicted) ** 2) / np.sum((observed - observed.mean()) ** 2))
