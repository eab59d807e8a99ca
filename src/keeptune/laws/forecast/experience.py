"""Forecast the end of a run from the law of earlier runs of the same base and task, and the run's own readings.

The joint law gives the mean of similar runs. The deviation of this run is modeled as a Gaussian process with mean zero
over log N. Its variance is the uncertainty of the law, and its correlation length is a factor e of steps. Readings
observe it with noise of the size of the law's residuals, and its end is predicted (kriging of the law's residuals:
Cressie 1993, *Statistics for Spatial Data*, 3.4).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from keeptune.errors import ConfigError
from keeptune.laws.forecast.forecast import Prediction
from keeptune.laws.forms import Floats
from keeptune.laws.joint.fit import JointFit

_LEVEL = 0.9
_HALF = float(stats.norm.ppf((1 + _LEVEL) / 2))
# A reading this many standard deviations from the law means that the law is not about such runs.
_FAR = 5.0


def forecast_with_law(
    law: JointFit, *, P: float, steps: ArrayLike, L_ft: ArrayLike, L_f: ArrayLike, end: int, interval: float = 0.9
) -> tuple[Prediction, Prediction]:
    """Forecast the last readings of both losses.

    Args:
        law: fitted, with replicates, to earlier runs with the same training method and other ranks or seeds.
        P: tuned parameters of this run.
        steps, L_ft, L_f: of its readings so far, [M]. Readings before the first step of the law are left out, and
            values that are not finite. Without readings the law alone gives the forecast.
        end: the run's last step.
        interval: coverage of the intervals.

    Returns:
        Forecasts of L_ft and of L_f, nats per token.

    Raises:
        ConfigError: the law has no replicates, or this run does not follow it.
    """
    if not len(law.draws_):
        raise ConfigError(
            "the law has no replicates, so its uncertainty is not known", "fit it to more runs, with replicates"
        )
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
        raise ConfigError(
            f"this run does not follow the law: it deviates by {deviation}",
            "fit the law to runs with the same data, schedule, λ and old text",
        )


def _conditioned(covariance: Floats, residual_M: Floats, noise: float) -> tuple[float, float]:
    """Mean and variance of a Gaussian process at its last place, given noisy observations at the places before."""
    if not len(residual_M):
        return 0.0, float(covariance[-1, -1])
    observed = covariance[:-1, :-1] + noise**2 * np.eye(len(residual_M))
    weights = np.linalg.solve(observed, covariance[:-1, -1])
    return float(weights @ residual_M), float(covariance[-1, -1] - weights @ covariance[:-1, -1])
