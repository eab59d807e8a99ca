"""Robust least squares, and intervals from a bootstrap over runs.

This is the wild cluster bootstrap, with runs as clusters. Each replicate multiplies the residuals of every run by one
random number of mean 0 and variance 1, adds them to the fitted values, and refits. No rank ever drops out, and the
correlation within a run is kept. The weights take six values (Webb 2023, doi:10.1111/caje.12661), because with few runs
two signs alone would repeat. The residuals are first corrected for leverage, and deviations from the estimate are
widened by t/z with the degrees of freedom of the prediction (`Leverage`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

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
# Directions with less than this share of the largest information have no finite error.
_LEAST_INFORMATION = 1e-12
# A direction that a single run determines fits that run exactly: there is no residual to correct.
_ALONE = 1 - 1e-6


class Band(NamedTuple):
    """A prediction, nats per token, fp64. The ends are None if no interval was asked for or none can be computed."""

    value: Floats
    low: Floats | None = None
    """`low` and `high` cover the law itself, the mean over runs of this kind."""
    high: Floats | None = None
    reading_low: Floats | None = None
    """`reading_low` and `reading_high` cover a new reading of a new run."""
    reading_high: Floats | None = None


class Limits(TypedDict, total=False):
    """Where `solve` stops."""

    evaluations: int
    tolerance: float


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
    return optimize.least_squares(
        residuals,
        np.clip(start, low, high),
        jacobian,
        (low, high),
        x_scale="jac",
        loss="soft_l1",
        ftol=tolerance,
        xtol=tolerance,
        max_nfev=evaluations,
    ).x


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
    below, above = np.quantile(residuals, [(1 - interval) / 2, (1 + interval) / 2], method="weibull")
    # Both errors are independent: half-widths add in squares.
    reading_low = value - np.hypot(np.maximum(value - low, 0), below)
    return Band(value, low, high, reading_low, value + np.hypot(np.maximum(high - value, 0), above))


def r_squared(observed: Floats, predicted: Floats) -> float:
    """The coefficient of determination R², at most 1. For constant observations 1 or 0, as scikit-learn has it."""
    left, whole = np.sum((observed - predicted) ** 2), np.sum((observed - observed.mean()) ** 2)
    return float(1 - left / whole) if whole > 0 else float(left == 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Leverage:
    """The leverage of each run on one fit, and the corrections that intervals need because of it.

    Residuals are smaller than the errors, most of all in runs with high leverage, such as those of the smallest rank.
    Uncorrected residuals would make intervals too narrow. Two corrections for least squares with clustered errors (Bell
    & McCaffrey 2002, Bias reduction in standard errors for linear regression with multi-stage samples; Pustejovsky &
    Tipton 2018, doi:10.1080/07350015.2016.1247004) need only the information of run g, F_g = J_g'·J_g:

    - Residuals r of run g become (1 − H_g)^−½·r, with H_g the run's block of the hat matrix ("CR2"). On average they
      then have the spread of the errors.
    - The variance of a prediction has Satterthwaite degrees of freedom: fewer at a corner of the readings, where few
      runs matter, than in the middle.
    """

    of_runs: Floats
    """F_g: fp64, [runs, parameters, parameters]."""

    @classmethod
    def of(cls, jacobian: Floats, run: NDArray[np.int64]) -> Leverage:
        """From derivatives of the residuals, fp64 [M, parameters], and the run of each row, [M].

        The derivatives are in units of the residuals' spread, times the roots of their robust weights.
        """
        blocks = [jacobian[run == name] for name in np.unique(run)]
        return cls(of_runs=np.stack([block.T @ block for block in blocks]))

    def corrected(self, residuals: Floats, jacobian: Floats, run: NDArray[np.int64]) -> Floats:
        """Residuals with the spread of the errors: (1 − H_g)^−½·r for each run g; fp64, [M], in units of `jacobian`.

        `jacobian` and `run` are those given to `of`.
        """
        whitening = self._whitening()
        result = residuals.copy()
        for name, shares, directions in zip(np.unique(run), *self._shares(whitening), strict=True):
            own = run == name
            along = jacobian[own] @ whitening @ directions
            factor = np.where(shares < _ALONE, 1 / np.sqrt(1 - np.minimum(shares, _ALONE)), 0.0)
            informed = shares > _LEAST_INFORMATION
            by_share = np.where(informed, (factor - 1) / np.where(informed, shares, 1.0), 0.0)
            result[own] += along @ (by_share * (along.T @ residuals[own]))
        return result

    def freedom(self, gradients: Floats) -> Floats:
        """Degrees of freedom, at least 1, of the variance of quantities with these gradients.

        From fp64 [K, parameters] to fp64 [K].
        """
        whitening = self._whitening()
        shares, directions = self._shares(whitening)
        shares = np.minimum(shares, _ALONE)
        # [K, runs, parameters]: the gradients along each run's own directions.
        along = np.einsum("kp,gpd->kgd", gradients @ whitening, directions)
        own = np.sum(along**2 * (shares / (1 - shares)), axis=2)
        drawn = np.einsum("kgd,gpd->kgp", along * (shares / np.sqrt(1 - shares)), directions)
        lengths = np.sum(drawn**2, axis=2)
        # Trace and sum of squares of the matrix diag(own) − drawn·drawn', without computing the matrix [runs, runs].
        trace = np.sum(own - lengths, axis=1)
        products = drawn.transpose(0, 2, 1) @ drawn
        squares = np.sum(own * (own - 2 * lengths), axis=1) + np.sum(products**2, axis=(1, 2))
        return np.maximum(trace**2 / np.where(squares > 0, squares, 1.0), 1.0)

    def _whitening(self) -> Floats:
        """W with W'·ΣF_g·W = 1 on the directions with information: fp64, [parameters, informed]."""
        whole = self.of_runs.sum(axis=0)
        lengths = np.sqrt(np.diag(whole))
        lengths = np.where(lengths > 0, lengths, 1.0)
        values, directions = np.linalg.eigh(whole / np.outer(lengths, lengths))
        kept = values > _LEAST_INFORMATION * values[-1]
        whitening: Floats = directions[:, kept] / np.sqrt(values[kept]) / lengths[:, None]
        return whitening

    def _shares(self, whitening: Floats) -> tuple[Floats, Floats]:
        """Eigenvalues of each H_g, 0 … 1, [runs, informed], and directions in white coordinates, [runs, informed²]."""
        shares, directions = np.linalg.eigh(whitening.T @ self.of_runs @ whitening)
        return np.clip(shares, 0.0, 1.0), directions
