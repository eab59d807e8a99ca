"""The line and the joint law fitted to runs, as scikit-learn does: `fit` returns self, learned values end in _."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple, Self, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keeptune.errors import ConfigError
from keeptune.laws.forms import Floats, LineLaw, Losses
from keeptune.laws.joint.surface import NAMES, READABLE, Surface, readable, readable_jacobian
from keeptune.laws.readings import Runs
from keeptune.laws.robust import (
    Band,
    Leverage,
    Limits,
    band,
    ends,
    r_squared,
    replicates,
    root_weights,
    scale_of,
    solve,
    thinned,
)

# Starting points are compared on this many readings. The best one is then fitted to all readings.
_START_READINGS = 400
# Enough evaluations to tell a good start from a bad one.
_START_EVALUATIONS = 60
# A replicate starts at the estimate and needs few evaluations.
REPLICATE_LIMITS: Limits = {"evaluations": 40, "tolerance": 1e-5}
# An exponent is weakly identified if its 90 % range spans more than this factor.
_WEAK_FACTOR = 2.0
_NORMAL_90 = 1.645
_LEAST_SIZES = 3


class Bands(NamedTuple):
    """Predictions of both losses."""

    L_ft: Band
    L_f: Band

    @classmethod
    def of(
        cls, value: Losses, draws: Sequence[Losses], residuals: Floats, interval: float | None, freedom: Floats
    ) -> Bands:
        """`band` of each loss. Residuals and degrees of freedom are stacked, L_ft first."""
        by_side = zip(value, zip(*draws, strict=True) if draws else ((), ()), residuals, freedom, strict=True)
        return cls(*(band(of, drawn, errors, interval, degrees) for of, drawn, errors, degrees in by_side))


@dataclass(kw_only=True)
class LineFit:
    """The line `L_f = −c·L_ft + s` (eq. 4) fitted to runs of any ranks.

    Attributes after `fit`: `law_`, a `LineLaw`; `params_`, its parameters; `spread_`, their 90 % ranges (empty without
    replicates); `r2_` of L_f on the fitted readings; `runs_`, their number; `residuals_` and `draws_`, from which
    intervals are computed.
    """

    bootstraps: int = 200
    """Number of replicates for the intervals; 0 for no intervals. A single run gives no intervals either."""
    seed: int = 0
    """Seed of the replicates."""

    def fit(self, runs: Runs) -> Self:
        """Fit to all readings; raises `ConfigError` for fewer than three, or for a single value of L_ft or L_f."""
        if len(runs) < 3 or np.ptp(runs.L_ft) == 0 or np.ptp(runs.L_f) == 0:
            values = f"{len(set(runs.L_ft.tolist()))} values of L_ft and {len(set(runs.L_f.tolist()))} of L_f"
            what = f"{len(runs)} readings with {values} do not determine a line"
            raise ConfigError(what, "give three readings or more, taken while the task loss falls (--drift-every)")
        design = np.stack([-runs.L_ft, np.ones(len(runs))], axis=1)
        first = np.asarray(np.linalg.lstsq(design, runs.L_f, rcond=None)[0], dtype=np.float64)
        scale = scale_of(design @ first - runs.L_f, runs.L_f)

        def refit(target: Floats, start: Floats = first) -> Floats:
            return solve(lambda theta: (design @ theta - target) / scale, lambda _: design / scale, start)

        best = refit(runs.L_f)
        fitted = design @ best
        self.leverage_, self.residuals_ = corrected(runs.L_f - fitted, design, np.full(len(runs), scale), runs.run)
        self.draws_: Floats = replicates(
            runs.run, self.bootstraps, self.seed, lambda factors: refit(fitted + factors * self.residuals_, best)
        )
        self.runs_, self.law_ = runs.count, LineLaw(c=float(best[0]), s=float(best[1]))
        self.params_ = asdict(self.law_)
        self.spread_ = ranges(("c", "s"), best, self.draws_, self.leverage_.freedom(np.eye(2)))
        self.r2_ = self.score(runs)
        return self

    def predict(self, *, L_ft: ArrayLike, interval: float | None = None) -> Band:
        """L_f at a task loss of L_ft, fp64, nats per token; raises `ConfigError` for an interval outside 0 … 1."""
        draws = [LineLaw(c=c, s=s).predict(L_ft=L_ft) for c, s in self.draws_]
        losses = np.asarray(L_ft, dtype=np.float64)
        gradients = np.stack([-losses.ravel(), np.ones(losses.size)], axis=1)
        freedom = self.leverage_.freedom(gradients).reshape(losses.shape)
        return band(self.law_.predict(L_ft=losses), draws, self.residuals_, interval, freedom)

    def score(self, runs: Runs) -> float:
        """R² of L_f."""
        return r_squared(runs.L_f, self.law_.predict(L_ft=runs.L_ft))


@dataclass(kw_only=True)
class JointFit:
    """The joint law (eqs. 5 and 6) fitted to runs of at least three P. Its c_f_ft is that of the line (4).

    Attributes after `fit`, besides those of `LineFit`: `params_` has c_ft = 2^−rho, because data cannot determine it;
    `weak_` names the exponents and slopes (`surface.readable`) that the runs do not determine within a factor of two;
    `spread_` has 90 % ranges of the others and of both limits, `s_ft` of L_ft and `t_f` of L_f; `condition_` is the
    condition number of the Jacobian with columns of length 1; `r2_` is of L_ft and L_f; `first_N_` is the earliest
    fitted step and `base_` the base's fingerprint.
    """

    bootstraps: int = 200
    """Number of replicates for the intervals; 0 for no intervals."""
    seed: int = 0
    """Seed of the replicates."""

    def fit(self, runs: Runs) -> Self:
        """Fit to all readings.

        Raises:
            ConfigError: fewer than three distinct P or N, fewer readings than parameters, or L_f does not rise as the
                task loss falls.
        """
        refuse_few(runs)
        slope = LineFit(bootstraps=0).fit(runs).law_.c
        if slope <= 0:
            what = "L_f does not rise as the task loss falls, as the joint law assumes"
            raise ConfigError(what, "use the line alone, or leave out early readings with --after")
        surface = Surface.of(runs.P, runs.N)
        first = _first(runs, surface)
        rough = _Problem(surface, runs, surface.losses(first)).solve(first)
        problem = _Problem(surface, runs, surface.losses(rough))
        best = problem.solve(first)
        self.surface_, self.theta_, self.slope_, self.runs_ = surface, best, slope, runs.count
        self.first_N_, self.base_ = float(runs.N.min()), runs.base
        fitted, both = surface.losses(best), np.tile(runs.run, 2)
        self.leverage_, residuals = corrected(problem.target - fitted, surface.jacobian(best), problem.scale, both)
        self.residuals_: Floats = residuals.reshape(2, -1)

        def refit(factors: Floats) -> Floats:
            return problem.solve(best, fitted + factors * residuals, **REPLICATE_LIMITS)

        self.draws_: Floats = replicates(both, self.bootstraps, self.seed, refit)
        self.condition_ = problem.condition(best)
        self.law_ = surface.law(best, slope)
        self.params_ = asdict(self.law_)
        self.spread_, self.weak_ = _known(best, self.draws_, self.leverage_, problem.weak(best))
        self.r2_ = self.score(runs)
        return self

    def predict(self, *, P: ArrayLike, N: ArrayLike, interval: float | None = None) -> Bands:
        """Predict both losses from tuned parameters and update steps, fp64 in their broadcast shape, nats per token.

        Raises:
            ConfigError: a P or N not above 0, or an interval (such as 0.9) outside 0 … 1.
        """
        value = self.law_.predict(P=P, N=N)
        draws = [self.surface_.law(theta, self.slope_).predict(P=P, N=N) for theta in self.draws_]
        gradients = self.surface_.at(P, N).jacobian(self.theta_)
        freedom = self.leverage_.freedom(gradients).reshape(2, *value.L_ft.shape)
        return Bands.of(value, draws, self.residuals_, interval, freedom)

    def score(self, runs: Runs) -> tuple[float, float]:
        """R² of L_ft and of L_f."""
        predicted = self.law_.predict(P=runs.P, N=runs.N)
        return r_squared(runs.L_ft, predicted.L_ft), r_squared(runs.L_f, predicted.L_f)


def refuse_few(runs: Runs) -> None:
    """Raise `ConfigError` for runs with too few P, N or readings to determine the joint law."""
    sizes, steps = len(runs.sizes), len(set(runs.N.tolist()))
    if sizes < _LEAST_SIZES or steps < _LEAST_SIZES:
        what = f"the joint law needs three P (ranks) and three N (steps), and the runs have {sizes} and {steps}"
        raise ConfigError(what, "add runs of other ranks, with readings at several steps")
    if 2 * len(runs) <= len(NAMES):
        raise ConfigError(f"{len(runs)} readings cannot determine {len(NAMES)} parameters", "read more often")


class _Problem:
    """Least squares of both losses, each in units of its own noise."""

    def __init__(self, surface: Surface, runs: Runs, fitted: Floats) -> None:
        self.surface = surface
        self.target = np.concatenate([runs.L_ft, runs.L_f])
        self.bounds = surface.bounds(runs.L_ft, runs.L_f)
        self.scale = scales_of(self.target - fitted, runs)

    def residuals(self, theta: Floats, target: Floats | None = None) -> Floats:
        return (self.surface.losses(theta) - (self.target if target is None else target)) / self.scale

    def jacobian(self, theta: Floats) -> Floats:
        return self.surface.jacobian(theta) / self.scale[:, None]

    def solve(self, start: Floats, target: Floats | None = None, **limits: Unpack[Limits]) -> Floats:
        return solve(lambda theta: self.residuals(theta, target), self.jacobian, start, self.bounds, **limits)

    def condition(self, theta: Floats) -> float:
        columns = self.jacobian(theta)
        lengths = np.linalg.norm(columns, axis=0)
        return float(np.linalg.cond(columns / np.where(lengths > 0, lengths, 1.0)))

    def weak(self, theta: Floats) -> list[str]:
        """Exponents and slopes whose 90 % range, from the curvature alone, spans more than a factor of two.

        Replicates start at the estimate and stop early in a flat valley. Only the curvature shows how long it is.
        """
        curvature = self.jacobian(theta).T @ self.jacobian(theta)
        floor = np.finfo(np.float64).eps * np.diag(curvature).max() * np.eye(len(theta))
        by_log = readable_jacobian(theta)
        spread = np.sqrt(np.diag(by_log @ np.linalg.inv(curvature + floor) @ by_log.T))
        factors = np.exp(np.minimum(2 * _NORMAL_90 * spread, 700))
        return [name for name, factor in zip(READABLE, factors, strict=True) if factor > _WEAK_FACTOR]


def _first(runs: Runs, surface: Surface) -> Floats:
    """The best of the starting points, after a few evaluations of each on a part of the readings."""
    some = thinned(len(runs), _START_READINGS)
    few = Surface(p=surface.p[some], n=surface.n[some], mean_log_P=surface.mean_log_P, mean_log_N=surface.mean_log_N)
    part = runs.where(np.isin(np.arange(len(runs)), some))
    means = np.repeat([part.L_ft.mean(), part.L_f.mean()], len(part))
    # Before any fit, the noise is taken as a tenth of the spread of the losses.
    problem = _Problem(few, part, means)
    problem.scale = 0.1 * problem.scale
    problem.bounds = surface.bounds(runs.L_ft, runs.L_f)
    ways = [problem.solve(start, evaluations=_START_EVALUATIONS) for start in few.starts(part.L_ft, part.L_f)]
    return min(ways, key=lambda theta: float(np.sum(np.abs(problem.residuals(theta)))))


def scales_of(errors: Floats, runs: Runs) -> Floats:
    """`scale_of` each loss, for each of the stacked errors; fp64, [2·readings]."""
    task, forgetting = errors.reshape(2, -1)
    return np.repeat([scale_of(task, runs.L_ft), scale_of(forgetting, runs.L_f)], len(runs))


def corrected(residuals: Floats, jacobian: Floats, scale: Floats, run: NDArray[np.int64]) -> tuple[Leverage, Floats]:
    """The leverage of the runs, and the residuals corrected for it, nats per token."""
    roots = root_weights(residuals / scale)
    weighed = jacobian * (roots / scale)[:, None]
    leverage = Leverage.of(weighed, run)
    return leverage, leverage.corrected(residuals * roots / scale, weighed, run) * scale / roots


def _known(
    best: Floats, draws: Floats, leverage: Leverage, weak: list[str]
) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """90 % ranges of what the runs determine, and the names of the rest: `weak`, and wide ranges of replicates."""
    if not len(draws):
        return {}, weak
    logs = ranges(READABLE, readable(best[None])[0], readable(draws), leverage.freedom(readable_jacobian(best)))
    wide = {name for name, (low, high) in logs.items() if high - low > math.log(_WEAK_FACTOR)}
    unknown = [name for name in READABLE if name in wide.union(weak)]
    known = {name: (math.exp(low), math.exp(high)) for name, (low, high) in logs.items() if name not in unknown}
    limits = leverage.freedom(np.eye(len(NAMES))[-2:])
    return known | ranges(NAMES[-2:], best[-2:], draws[:, -2:], limits), unknown


def ranges(names: Sequence[str], best: Floats, draws: Floats, freedom: Floats) -> dict[str, tuple[float, float]]:
    """90 % ranges by name; none without replicates."""
    if not len(draws):
        return {}
    low, high = ends(best, draws, 0.9, freedom)
    return {name: (float(low[place]), float(high[place])) for place, name in enumerate(names)}
