"""Forecast the end of a run from its first readings: final task loss, rise of L_f and KL, with intervals.

A reading's change from the base is A·g(τ), the shifted power along one run (Kalajdzievski 2024, arXiv 2401.05605, eqs.
5 and 6 at one P), generalized so that the start may be slow and the turn sharp:

    g(τ) = {[(1 + x)^b − 1]/b}^(1/s),  x ∝ (τ/τ₀)^(γ·s)       b < 0 saturates, b → 0 is a logarithm, b > 0 continues

τ is the cumulated learning rate over its peak, the number of steps at a constant rate. A decaying rate reduces the
change by G·S₂·g, with S₂ the annealing area of Tissue et al. 2024 (arXiv 2408.11029). Readings differ from this form by
noise and by its own error, a Brownian motion in log τ. The error continues from the latest residual and widens
intervals with log(τ_end/τ_now).

`keeptune.laws.forecast.mixture` integrates over the unknowns.

`forecast_with_law` uses the law of earlier runs of the same base and task too. The joint law gives the mean of similar
runs. The deviation of this run is modeled as a Gaussian process with mean zero over log N. Its variance is the
uncertainty of the law, and its correlation length is a factor e of steps. Readings observe it with noise of the size of
the law's residuals, and its end is predicted (kriging of the law's residuals: Cressie 1993, *Statistics for Spatial
Data*, 3.4).

Shapes: M readings.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from keeptune.errors import ConfigError
from keeptune.laws.forecast.mixture import DRIFT, TASK, Observed, mixture, quantiles
from keeptune.laws.forms import Floats
from keeptune.laws.joint.fit import JointFit
from keeptune.laws.robust import check_coverage

Measure = Literal["kl", "l_f_rise", "l_ft"]
LEAST_READINGS = 3
LEAST_SHARE = 0.1
# More readings than this are averaged within equal intervals of log τ.
_MOST_READINGS = 24
_MEMORY = 0.999
# Of the intervals from which the uncertainty of a law is computed.
_LEVEL = 0.9
_HALF = float(stats.norm.ppf((1 + _LEVEL) / 2))
# A reading this many standard deviations from the law means that the law is not about such runs.
_FAR = 5.0


class Prediction(NamedTuple):
    """The value of a run's last reading, nats per token, with the ends of its interval."""

    value: float
    low: float
    high: float


def forecast(
    measure: Measure,
    steps: ArrayLike,
    values: ArrayLike,
    *,
    end: int,
    base: float | None = None,
    rates: ArrayLike | None = None,
    interval: float = 0.9,
) -> Prediction:
    """Forecast the last reading of a run.

    Args:
        measure: `l_ft`, the task loss; `l_f_rise`, the rise of L_f above the base's; or `kl`.
        steps: steps of the readings so far, ascending; [M]. Step 0 is the base itself and is left out.
        values: nats per token; [M]. Values that are not finite are left out.
        end: the run's last step.
        base: the base's task loss, if it was read; the other two measures begin at 0.
        rates: the learning rate of each step, in any unit; [end]. Constant by default.
        interval: coverage of the interval.

    Raises:
        ConfigError: fewer than three readings, none after a tenth of the run, or the run is over.
    """
    drift = measure != "l_ft"
    base = 0.0 if drift else base
    steps_M, values_M = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    kept_M = (steps_M > 0) & np.isfinite(values_M)
    steps_M, values_M = steps_M[kept_M], values_M[kept_M]
    _refuse(steps_M, end)
    check_coverage(interval)
    tau, gain = _clock(np.ones(end) if rates is None else np.asarray(rates, dtype=np.float64), end)
    origin = values_M[0] if base is None else base
    unit = float(np.ptp(values_M) if base is None else np.abs(values_M - base).max())
    places_M = steps_M.astype(np.int64) - 1
    if unit == 0.0 or tau[places_M[-1]] == 0.0:
        raise ConfigError("no reading differs from the base yet", "wait for readings with a change")
    observed = _average(tau[places_M], gain[places_M], (values_M - origin) / unit)
    prior, tail = DRIFT if drift else TASK, (1 - interval) / 2
    weights, means, spreads = mixture(observed, tau[-1], gain[-1], prior, offset=base is None)
    shares = np.array([tail, 0.5, 1 - tail])
    # No loss or divergence is below 0, so the mixture is truncated there.
    least = -np.inf if measure == "l_f_rise" else 0.0
    below = special.ndtr(((least - origin) / unit - means) / spreads) @ weights
    ends = quantiles(weights, means, spreads, below + shares * (1 - below))
    low, middle, high = (float(end) for end in origin + unit * ends)
    return Prediction(middle, low, high)


def _refuse(steps_M: Floats, end: int) -> None:
    if len(steps_M) and steps_M[-1] >= end:
        raise ConfigError("the run is over", "use its last reading")
    if len(steps_M) < LEAST_READINGS:
        what = f"{LEAST_READINGS} readings after step 0, and the run has {len(steps_M)}"
    elif steps_M[-1] < LEAST_SHARE * end:
        what = f"a tenth of the run, and step {steps_M[-1]:.0f} of {end} is {steps_M[-1] / end:.1%}"
    else:
        return
    raise ConfigError(f"a forecast needs {what}", "wait for more readings")


def _clock(rates: Floats, end: int) -> tuple[Floats, Floats]:
    """Effective steps and annealing after each step; [end] each."""
    if rates.shape != (end,) or not np.isfinite(rates).all() or rates.min() < 0 or rates.max() == 0:
        what = f"the schedule has {rates.size} rates for {end} steps, or a rate that is negative or not finite"
        raise ConfigError(what, "give a learning rate for every step")
    share = rates / rates.max()
    # Only falls of the rate count, not warm-up (section 3.4 of 2408.11029).
    falls = np.maximum(-np.diff(share, prepend=share[0]), 0.0)
    momentum = np.zeros(end)
    for step in range(1, end):
        momentum[step] = _MEMORY * momentum[step - 1] + falls[step]
    area = np.cumsum(momentum)
    # Normalized to the fall of the rate at the end, so that one prior fits every schedule.
    return np.cumsum(share), area / area[-1] * (1 - share[-1]) if area[-1] > 0 else area


def _average(tau_M: Floats, gain_M: Floats, change_M: Floats) -> Observed:
    if len(tau_M) <= _MOST_READINGS:
        return Observed(tau_M, gain_M, change_M, np.ones(len(tau_M)))
    age_M = np.log1p(tau_M)
    bins_M = np.digitize(age_M, np.linspace(age_M[0], age_M[-1], _MOST_READINGS + 1)[1:-1])
    _, bins_M, count = np.unique(bins_M, return_inverse=True, return_counts=True)
    tau, gain, change = (np.bincount(bins_M, weights=of_M) / count for of_M in (tau_M, gain_M, change_M))
    return Observed(tau, gain, change, count.astype(np.float64))


def forecast_with_law(
    law: JointFit, *, P: float, steps: ArrayLike, L_ft: ArrayLike, L_f: ArrayLike, end: int, interval: float = 0.9
) -> tuple[Prediction, Prediction]:
    """Forecast the last readings of L_ft and L_f, nats per token, from the law of earlier runs and the run's readings.

    Args:
        law: fitted, with replicates, to earlier runs with the same training method and other ranks or seeds.
        P: tuned parameters of this run.
        steps, L_ft, L_f: of its readings so far, [M]. Readings before the first step of the law are left out, and
            values that are not finite. Without readings the law alone gives the forecast.
        end: the run's last step.
        interval: coverage of the intervals.

    Raises:
        ConfigError: the law has no replicates, or this run does not follow it.
    """
    if not len(law.draws_):
        what = "the law has no replicates, so its uncertainty is not known"
        raise ConfigError(what, "fit it to more runs, with replicates")
    first, tail = law.first_N_, float(stats.norm.ppf((1 + interval) / 2))
    predictions = []
    for side, values in enumerate((L_ft, L_f)):
        step_M, value_M = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
        kept_M = (step_M >= first) & np.isfinite(value_M)
        places = np.append(step_M[kept_M], float(end))
        band = law.predict(P=P, N=places, interval=_LEVEL)[side]
        spread = (np.asarray(band.high) - np.asarray(band.low)) / (2 * _HALF)
        own = np.outer(spread, spread) * np.exp(-np.abs(np.subtract.outer(np.log(places), np.log(places))))
        noise = float(np.std(law.residuals_[side]))
        residual_M = value_M[kept_M] - band.value[:-1]
        _refuse_another_kind(residual_M / np.hypot(spread[:-1], noise), step_M[kept_M])
        mean, variance = _conditioned(own, residual_M, noise)
        middle, half = float(band.value[-1] + mean), tail * float(np.sqrt(variance + noise**2))
        predictions.append(Prediction(middle, middle - half, middle + half))
    return predictions[0], predictions[1]


def _refuse_another_kind(deviation_M: Floats, steps_M: Floats) -> None:
    if len(deviation_M) and np.abs(deviation_M).max() > _FAR:
        worst = int(np.abs(deviation_M).argmax())
        deviation = f"{deviation_M[worst]:+.1f} standard deviations at step {steps_M[worst]:.0f}"
        what = f"this run does not follow the law: it deviates by {deviation}"
        raise ConfigError(what, "fit the law to runs with the same data, schedule, λ and old text")


def _conditioned(covariance: Floats, residual_M: Floats, noise: float) -> tuple[float, float]:
    """Mean and variance of a Gaussian process at its last place, given noisy observations at the places before."""
    if not len(residual_M):
        return 0.0, float(covariance[-1, -1])
    observed = covariance[:-1, :-1] + noise**2 * np.eye(len(residual_M))
    weights = np.linalg.solve(observed, covariance[:-1, -1])
    return float(weights @ residual_M), float(covariance[-1, -1] - weights @ covariance[:-1, -1])
