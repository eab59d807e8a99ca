"""Forecast the end of a run from its first readings: final task loss, rise of L_f and KL, with intervals.

A reading's change from the base is A·g(τ), the shifted power along one run (Kalajdzievski 2024, arXiv 2401.05605, eqs.
5 and 6 at one P), generalized so that the start may be slow and the turn sharp:

    g(τ) = {[(1 + x)^b − 1]/b}^(1/s),  x ∝ (τ/τ₀)^(γ·s)       b < 0 saturates, b → 0 is a logarithm, b > 0 continues

τ is the cumulated learning rate over its peak, the number of steps at a constant rate. A decaying rate reduces the
change by G·S₂·g, with S₂ the annealing area of Tissue et al. 2024 (arXiv 2408.11029). Readings differ from this form by
noise and by its own error, a Brownian motion in log τ. The error continues from the latest residual and widens
intervals with log(τ_end/τ_now).

`keeptune.laws.forecast.mixture` integrates over the unknowns. Shapes: M readings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from keeptune.errors import ConfigError
from keeptune.laws.forecast.mixture import DRIFT, TASK, Observed, mixture, quantiles
from keeptune.laws.forms import Floats
from keeptune.laws.robust import check_coverage

Measure = Literal["kl", "l_f_rise", "l_ft"]
LEAST_READINGS = 3
LEAST_SHARE = 0.1
# More readings than this are averaged within equal intervals of log τ.
_MOST_READINGS = 24
_MEMORY = 0.999


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
    clock = _Clock.of(np.ones(end) if rates is None else np.asarray(rates, dtype=np.float64), end)
    origin = values_M[0] if base is None else base
    unit = float(np.ptp(values_M) if base is None else np.abs(values_M - base).max())
    places_M = steps_M.astype(np.int64) - 1
    if unit == 0.0 or clock.tau[places_M[-1]] == 0.0:
        raise ConfigError("no reading differs from the base yet", "wait for readings with a change")
    observed = _average(clock.tau[places_M], clock.gain[places_M], (values_M - origin) / unit)
    weights, means, spreads = mixture(
        observed, clock.tau[-1], clock.gain[-1], DRIFT if drift else TASK, offset=base is None
    )
    tail = (1 - interval) / 2
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
        raise ConfigError(
            f"a forecast needs {LEAST_READINGS} readings after step 0, and the run has {len(steps_M)}",
            "wait for more readings",
        )
    if steps_M[-1] < LEAST_SHARE * end:
        raise ConfigError(
            f"a forecast needs a tenth of the run, and step {steps_M[-1]:.0f} of {end} is {steps_M[-1] / end:.1%}",
            "wait for more readings",
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
                f"the schedule has {rates.size} rates for {end} steps, or a rate that is negative or not finite",
                "give a learning rate for every step",
            )
        share = rates / rates.max()
        # Only falls of the rate count, not warm-up (section 3.4 of 2408.11029).
        falls = np.maximum(-np.diff(share, prepend=share[0]), 0.0)
        momentum = np.zeros(end)
        for step in range(1, end):
            momentum[step] = _MEMORY * momentum[step - 1] + falls[step]
        area = np.cumsum(momentum)
        # Normalized to the fall of the rate at the end, so that one prior fits every schedule.
        gain = area / area[-1] * (1 - share[-1]) if area[-1] > 0 else area
        return cls(tau=np.cumsum(share), gain=gain)


def _average(tau_M: Floats, gain_M: Floats, change_M: Floats) -> Observed:
    if len(tau_M) <= _MOST_READINGS:
        return Observed(tau_M, gain_M, change_M, np.ones(len(tau_M)))
    age_M = np.log1p(tau_M)
    bins_M = np.digitize(age_M, np.linspace(age_M[0], age_M[-1], _MOST_READINGS + 1)[1:-1])
    _, bins_M, count = np.unique(bins_M, return_inverse=True, return_counts=True)
    tau, gain, change = (np.bincount(bins_M, weights=of_M) / count for of_M in (tau_M, gain_M, change_M))
    return Observed(tau, gain, change, count.astype(np.float64))
