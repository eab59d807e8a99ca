"""Forecast the end of a run: final task loss, rise of L_f and KL, each with a 90 % interval.

`forecast` needs the run's own readings alone, and knows a method for each measure:

- the task loss by `keeptune.laws.forecast.mixture`, a mixture of shifted powers;
- drift, L_f and KL, by the line through the readings since half of the way, which goes on from the latest one, for L_f
  in the root of τ and at half its slope, for KL in log τ. Intervals are ± h·|largest change so far|·log(τ_end/τ_now).

τ is the cumulated learning rate over its peak: steps count by their rate, so that a rate that falls leaves little
change to come. Constants were chosen on seven sweeps, and methods judged on eleven others, beside no further change,
straight lines and a power law: `benchmarks/bench_forecast.py`. In the first quarter of a run no method foretold drift.

`forecast_with_law` uses the law of earlier runs of the same base and task too. The joint law gives the mean of similar
runs. The deviation of this run is modeled as a Gaussian process with mean zero over log N. Its variance is the
uncertainty of the law, and its correlation length is a factor e of steps. Readings observe it with noise of the size of
the law's residuals, and its end is predicted (kriging of the law's residuals: Cressie 1993, *Statistics for Spatial
Data*, 3.4).

Shapes: M readings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from keeptune.errors import ConfigError
from keeptune.laws.forecast.mixture import Observed, mixture, quantiles
from keeptune.laws.forms import Floats
from keeptune.laws.joint.fit import JointFit

Measure = Literal["kl", "l_f_rise", "l_ft"]
LEAST_READINGS = 3
FIRST_SHARE = 0.25
"""Share of a run from which on forecasts were judged."""
_TAIL = 0.05
# More readings than this are averaged within equal intervals of log τ.
_MOST_READINGS = 24
# A line's readings begin at this share of the way so far.
_WINDOW = 0.5


class _Line(NamedTuple):
    """How drift goes on."""

    clock: Callable[[Any], Any]
    slowing: float
    """Factor of the slope."""
    half_width: float
    """Of the interval, as a multiple of the largest change so far, for a factor e of τ."""


_LINES = {"l_f_rise": _Line(np.sqrt, 0.5, 0.65), "kl": _Line(np.log, 1.0, 0.75)}
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
) -> Prediction:
    """Forecast the last reading of a run, with a 90 % interval.

    Args:
        measure: `l_ft`, the task loss; `l_f_rise`, the rise of L_f above the base's; or `kl`.
        steps: steps of the readings so far, ascending; [M]. Step 0 is the base itself and is left out.
        values: nats per token; [M]. Values that are not finite are left out.
        end: the run's last step.
        base: the base's task loss, by default the first reading; the other two measures begin at 0.
        rates: the learning rate of each step, in any unit; [end]. Constant by default.

    Raises:
        ConfigError: fewer than three readings, no change so far, or the run is over.
    """
    steps_M, values_M = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
    tau = _clock(np.ones(end) if rates is None else np.asarray(rates, dtype=np.float64), end)
    # A step with a rate of 0, such as the first of a warm-up may be, leaves the base as it is.
    moved_M = np.append(0.0, tau)[np.clip(steps_M, 0, end).astype(np.int64)] > 0
    kept_M = moved_M & np.isfinite(values_M)
    steps_M, values_M = steps_M[kept_M], values_M[kept_M]
    _refuse(steps_M, end)
    tau_M = tau[steps_M.astype(np.int64) - 1]
    origin = 0.0 if measure != "l_ft" else values_M[0] if base is None else base
    change = float(np.abs(values_M - origin).max())
    if change == 0.0 or tau_M[0] == tau_M[-1]:
        raise ConfigError("no reading differs from the base yet", "wait for readings with a change")
    if measure == "l_ft":
        return _by_mixture(tau_M, values_M, float(tau[-1]), origin, change, offset=base is None)
    line, first = _LINES[measure], min(int(np.searchsorted(tau_M, _WINDOW * tau_M[-1])), len(tau_M) - LEAST_READINGS)
    clock_M = line.clock(tau_M[first:])
    # Without a learning rate between them the readings have no slope.
    slope = float(np.polyfit(clock_M, values_M[first:], 1)[0]) if np.ptp(clock_M) else 0.0
    value = values_M[-1] + line.slowing * slope * (line.clock(tau[-1]) - clock_M[-1])
    half = line.half_width * change * np.log(tau[-1] / tau_M[-1])
    least = 0.0 if measure == "kl" else -np.inf
    return Prediction(*(max(float(number), least) for number in (value, value - half, value + half)))


def _by_mixture(
    tau_M: Floats, values_M: Floats, tau_end: float, origin: float, change: float, *, offset: bool
) -> Prediction:
    weights, means, spreads = mixture(_average(tau_M, (values_M - origin) / change), tau_end, offset=offset)
    # No loss is below 0, so the mixture is truncated there.
    below = special.ndtr((-origin / change - means) / spreads) @ weights
    ends = quantiles(weights, means, spreads, below + np.array([0.5, _TAIL, 1 - _TAIL]) * (1 - below))
    return Prediction(*(float(end) for end in origin + change * ends))


def _average(tau_M: Floats, change_M: Floats) -> Observed:
    if len(tau_M) <= _MOST_READINGS:
        return Observed(tau_M, change_M, np.ones(len(tau_M)))
    age_M = np.log1p(tau_M)
    bins_M = np.digitize(age_M, np.linspace(age_M[0], age_M[-1], _MOST_READINGS + 1)[1:-1])
    _, bins_M, count = np.unique(bins_M, return_inverse=True, return_counts=True)
    tau, change = (np.bincount(bins_M, weights=of_M) / count for of_M in (tau_M, change_M))
    return Observed(tau, change, count.astype(np.float64))


def _refuse(steps_M: Floats, end: int) -> None:
    if len(steps_M) and steps_M[-1] >= end:
        raise ConfigError("the run is over", "use its last reading")
    if len(steps_M) < LEAST_READINGS:
        what = f"{LEAST_READINGS} readings after step 0, and the run has {len(steps_M)}"
        raise ConfigError(f"a forecast needs {what}", "wait for more readings")


def _clock(rates: Floats, end: int) -> Floats:
    """The cumulated learning rate over its peak after each step; [end]."""
    if rates.shape != (end,) or not np.isfinite(rates).all() or rates.min() < 0 or rates.max() == 0:
        what = f"the schedule has {rates.size} rates for {end} steps, or a rate that is negative or not finite"
        raise ConfigError(what, "give a learning rate for every step")
    return np.cumsum(rates / rates.max())


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
