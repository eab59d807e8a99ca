"""Where a run will end, from its first readings: final task loss, rise of L_f and KL, with intervals.

A reading's change from the base is A·g(τ), with the shifted power along one run (Kalajdzievski 2024, arXiv 2401.05605,
eqs. 5 and 6 at one P), whose start is free to be slow:

    g(τ) = [(1 + (τ/τ₀)^γ)^b − 1]/b          b < 0 saturates, b → 0 is a logarithm, b > 0 a power that goes on

τ is the cumulated learning rate over its peak: steps at a constant rate. What a falling rate takes off is G·S₂·g, with
S₂ the annealing area of Tissue et al. 2024 (arXiv 2408.11029). Readings differ from that by noise, and by a Brownian
motion in log τ, the form's own error: it carries the latest residual on, and widens intervals with log(τ_end/τ_now).

Everything is conditionally linear and Gaussian: τ₀, γ, b, the noise and the form's error lie on a grid, and each point
of it has its posterior in closed form. The forecast is the mixture, so it needs no draws and no seed.

Shapes: H pairs of noise and error of the form, K shapes g, M readings, P coefficients (A, G, offset).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg, special

from keeptune.errors import ConfigError
from keeptune.laws.forms import Floats

LEAST_READINGS = 3
LEAST_SHARE = 0.1
# The published law falls and rises with N at a local power of about 0.5 (ρ·β, times the share of N in the bracket).
_POWER, _POWER_SPREAD = -0.5, 0.4
# None is 0: the logarithm lies between two of them.
_POWERS = np.linspace(-1.45, 0.65, 15)
_STARTS = np.geomspace(0.5, 512.0, 21)
_BENDS, _BEND_WEIGHTS = (1.0, 1.5, 2.0), (0.6, 0.25, 0.15)
# In units of the change seen so far; the error of the form for each factor e of steps.
_NOISES, _NOISE, _NOISE_SPREAD = np.geomspace(0.003, 0.2, 5), 0.02, 1.2
_ERRORS, _ERROR, _ERROR_SPREAD = np.geomspace(0.012, 0.3, 4), 0.05, 0.8
# A rate that falls to zero takes a tenth off a change, or twice that, or nothing.
_GAIN, _GAIN_SPREAD = 0.1, 0.1
_MEMORY = 0.999
_OFFSET_SPREAD = 3.0
_LEVEL_SPREAD = 1.0
_OLD = 1.0
# More readings than these are averaged within equal stretches of log τ.
_MOST_READINGS = 24
_LEAST_LEVEL = 0.2
_NEGLIGIBLE = 1e-5


class Prediction(NamedTuple):
    """The value of a run's last reading, nats per token, with the ends of its interval."""

    value: float
    low: float
    high: float


def forecast(
    steps: ArrayLike,
    values: ArrayLike,
    *,
    end: int,
    base: float | None = 0.0,
    least: float = -np.inf,
    rates: ArrayLike | None = None,
    interval: float = 0.9,
) -> Prediction:
    """What the last reading of a run will be.

    Args:
        steps: of the readings of this run so far, ascending; [M]. Step 0 is the base itself and is left out.
        values: task loss, rise of L_f or KL, nats per token; [M]. What is not finite is left out.
        end: the run's last step.
        base: the value at step 0; None where it was not read.
        least: what the value cannot fall below, such as 0 for a KL.
        rates: the learning rate of each step, in any unit; [end]. A constant one by default.
        interval: the share of runs that are to end inside.

    Raises:
        ConfigError: fewer than three readings, none after a tenth of the run, or a run that is over.
    """
    steps_M, values_M = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    kept_M = (steps_M > 0) & np.isfinite(values_M)
    steps_M, values_M = steps_M[kept_M], values_M[kept_M]
    _refuse(steps_M, end)
    if not 0 < interval < 1:
        raise ConfigError(f"an interval cannot cover {interval} of what is to come", "give a share such as 0.9")
    clock = _Clock.of(np.ones(end) if rates is None else np.asarray(rates, dtype=np.float64), end)
    origin = values_M[0] if base is None else base
    unit = float(np.ptp(values_M) if base is None else np.abs(values_M - base).max())
    if unit == 0.0:
        # Nothing has moved, as at a rate that is still zero: no shape can be seen.
        raise ConfigError("no reading differs from the base yet", "read on: a forecast needs a change to go by")
    places_M = steps_M.astype(np.int64) - 1
    seen = _average(clock.tau[places_M], clock.gain[places_M], (values_M - origin) / unit)
    weights, means, spreads = _mixture(seen, clock.tau[-1], clock.gain[-1], offset=base is None)
    tail = (1 - interval) / 2
    shares = np.array([tail, 0.5, 1 - tail])
    # What lies below the least value is not so: the rest is all.
    impossible = special.ndtr(((least - origin) / unit - means) / spreads) @ weights
    ends = _quantiles(weights, means, spreads, impossible + shares * (1 - impossible))
    low, middle, high = (float(end) for end in origin + unit * ends)
    return Prediction(middle, low, high)


def _refuse(steps_M: Floats, end: int) -> None:
    if len(steps_M) and steps_M[-1] >= end:
        raise ConfigError("the run is over", "read its last row")
    if len(steps_M) < LEAST_READINGS:
        raise ConfigError(
            f"a forecast needs {LEAST_READINGS} readings after the first step; here are {len(steps_M)}", "read on"
        )
    if steps_M[-1] < LEAST_SHARE * end:
        raise ConfigError(
            f"a forecast needs a tenth of the run; step {steps_M[-1]:.0f} of {end} is {steps_M[-1] / end:.1%}",
            "read on",
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Clock:
    """Effective steps and annealing after each step; [end]."""

    tau: Floats
    gain: Floats

    @classmethod
    def of(cls, rates: Floats, end: int) -> _Clock:
        if rates.shape != (end,) or not np.isfinite(rates).all() or rates.min() < 0 or rates.max() == 0:
            raise ConfigError(
                f"the schedule has {rates.size} rates for {end} steps, or one that is no rate",
                "give a learning rate for every step, none below 0",
            )
        share = rates / rates.max()
        # Warm-up is no annealing: only falls count (section 3.4 there).
        falls = np.maximum(-np.diff(share, prepend=share[0]), 0.0)
        momentum = np.zeros(end)
        for step in range(1, end):
            momentum[step] = _MEMORY * momentum[step - 1] + falls[step]
        area = np.cumsum(momentum)
        # At the end it is how far the rate fell, so that the prior of what a whole fall gains fits every schedule.
        gain = area / area[-1] * (1 - share[-1]) if area[-1] > 0 else area
        return cls(tau=np.cumsum(share), gain=gain)


class _Seen(NamedTuple):
    """Readings, in units of the change so far; [M]."""

    tau: Floats
    gain: Floats
    change: Floats
    readings: Floats
    """That each is the mean of."""


def _average(tau_M: Floats, gain_M: Floats, change_M: Floats) -> _Seen:
    if len(tau_M) <= _MOST_READINGS:
        return _Seen(tau_M, gain_M, change_M, np.ones(len(tau_M)))
    age_M = np.log1p(tau_M)
    bins_M = np.digitize(age_M, np.linspace(age_M[0], age_M[-1], _MOST_READINGS + 1)[1:-1])
    _, bins_M, count = np.unique(bins_M, return_inverse=True, return_counts=True)
    means = (np.bincount(bins_M, weights=of_M) / count for of_M in (tau_M, gain_M, change_M))
    return _Seen(*means, count.astype(np.float64))


def _shapes(tau_M: Floats) -> tuple[Floats, Floats]:
    """g of every shape, 1 at the last but one place, and the shapes' log prior; [K, M] and [K]."""
    grid = [
        (b, start, bend, -0.5 * ((b - _POWER) / _POWER_SPREAD) ** 2 + np.log(weight))
        for b, start, (bend, weight) in itertools.product(_POWERS, _STARTS, zip(_BENDS, _BEND_WEIGHTS, strict=True))
    ]
    b_K, start_K, bend_K, prior_K = np.array(grid).T
    g_KM = np.expm1(b_K[:, None] * np.log1p((tau_M / start_K[:, None]) ** bend_K[:, None])) / b_K[:, None]
    return g_KM / g_KM[:, -2:-1], prior_K


def _mixture(seen: _Seen, tau_end: float, gain_end: float, *, offset: bool) -> tuple[Floats, Floats, Floats]:
    """Weights, means and standard deviations of the forecast's components, in the unit of `seen`; [H·K] each."""
    g_KM, prior_K = _shapes(np.append(seen.tau, tau_end))
    now = seen.change[-1]
    columns, prior_mean, prior_spread = [g_KM], [now], [_LEVEL_SPREAD]
    if gain_end > 0:
        columns.append(-np.append(seen.gain, gain_end) * g_KM * now)
        prior_mean, prior_spread = [*prior_mean, _GAIN], [*prior_spread, _GAIN_SPREAD]
    if offset:
        columns, prior_mean, prior_spread = (
            [*columns, np.ones_like(g_KM)],
            [*prior_mean, 0.0],
            [*prior_spread, _OFFSET_SPREAD],
        )
    X_KMP = np.stack(columns, axis=2)
    # Noise and the error of the form are in proportion to the change.
    level_M = np.ones(len(seen.tau)) if offset else np.maximum.accumulate(np.abs(seen.change))
    level_M = np.maximum(level_M, _LEAST_LEVEL)
    model = _Model(
        seen=seen,
        X_KMP=X_KMP[:, :-1] / level_M[:, None],
        end_KP=X_KMP[:, -1],
        z_M=seen.change / level_M,
        age_M=np.log1p(seen.tau),
        old_M=((1 + seen.tau[-1]) / (1 + seen.tau)) ** _OLD,
        age_end=float(np.log1p(tau_end)),
        mean_P=np.array(prior_mean),
        precision_P=np.array(prior_spread) ** -2,
    )
    parts = []
    for noise, error in itertools.product(_NOISES, _ERRORS):
        prior = (
            -0.5 * (np.log(noise / _NOISE) / _NOISE_SPREAD) ** 2 - 0.5 * (np.log(error / _ERROR) / _ERROR_SPREAD) ** 2
        )
        evidence_K, mean_K, spread_K = model.given(noise, error)
        parts.append((evidence_K + prior_K + prior, mean_K, spread_K))
    log_weights, means, spreads = (np.concatenate(part) for part in zip(*parts, strict=True))
    weights = np.exp(log_weights - log_weights.max())
    kept = weights > _NEGLIGIBLE
    return weights[kept] / weights[kept].sum(), means[kept], spreads[kept]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Model:
    """A linear model of the readings for every shape at once."""

    seen: _Seen
    X_KMP: Floats
    end_KP: Floats
    z_M: Floats
    age_M: Floats
    old_M: Floats
    age_end: float
    mean_P: Floats
    precision_P: Floats

    def given(self, noise: float, error: float) -> tuple[Floats, Floats, Floats]:
        """Log evidence of each shape, and mean and standard deviation of its forecast; [K] each."""
        walk_MM = error**2 * np.minimum(self.age_M[:, None], self.age_M)
        chol_MM = linalg.cholesky(walk_MM + np.diag(noise**2 * self.old_M / self.seen.readings), lower=True)
        ahead_M = error**2 * self.age_M
        inverse_MM = linalg.solve_triangular(chol_MM, np.eye(len(chol_MM)), lower=True)
        z_M, w_M = inverse_MM @ self.z_M, inverse_MM @ ahead_M
        X_KMP = inverse_MM @ self.X_KMP
        XT_KPM = X_KMP.transpose(0, 2, 1)
        precision_KPP = XT_KPM @ X_KMP + np.diag(self.precision_P)
        covariance_KPP = np.linalg.inv(precision_KPP)
        right_KP = XT_KPM @ z_M + self.precision_P * self.mean_P
        theta_KP = np.einsum("kpq,kq->kp", covariance_KPP, right_KP)
        fit_K = z_M @ z_M + self.precision_P @ self.mean_P**2 - np.einsum("kp,kp->k", right_KP, theta_KP)
        evidence_K = -0.5 * fit_K - 0.5 * np.log(np.linalg.det(precision_KPP)) - np.log(np.diag(chol_MM)).sum()
        said_K = np.einsum("kp,kp->k", self.end_KP, theta_KP)
        level_K = np.maximum(np.abs(said_K), _LEAST_LEVEL)
        row_KP = self.end_KP - level_K[:, None] * np.einsum("m,kmp->kp", w_M, X_KMP)
        mean_K = np.einsum("kp,kp->k", row_KP, theta_KP) + level_K * (w_M @ z_M)
        own = error**2 * self.age_end - w_M @ w_M + noise**2
        variance_K = np.einsum("kp,kpq,kq->k", row_KP, covariance_KPP, row_KP) + level_K**2 * own
        return evidence_K, mean_K, np.sqrt(variance_K)


def _quantiles(weights: Floats, means: Floats, spreads: Floats, shares: Floats) -> Floats:
    """Of a mixture of normals, by bisection."""
    low = np.full(len(shares), (means - 9 * spreads).min())
    high = np.full(len(shares), (means + 9 * spreads).max())
    for _ in range(40):
        middle = (low + high) / 2
        below = special.ndtr((middle[:, None] - means) / spreads) @ weights < shares
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    ends: Floats = (low + high) / 2
    return ends
