"""Where a run will end, from the law of earlier runs of the same base and task, corrected by the run's own readings.

The joint law gives the mean of runs like this one. This run differs from it by a curve of its own, taken as a Gaussian
process with mean zero over log N: its variance is the law's own uncertainty there, and it is remembered over a factor e
of steps. Readings show it under noise the size of the law's residuals, and the end of it is what is forecast (kriging
of the law's residuals: Cressie 1993, *Statistics for Spatial Data*, 3.4).
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
# A reading so many standard deviations off the law is of a run of another kind.
_FAR = 5.0


def forecast_with_law(
    law: JointFit, *, P: float, steps: ArrayLike, L_ft: ArrayLike, L_f: ArrayLike, end: int, interval: float = 0.9
) -> tuple[Prediction, Prediction]:
    """What the last readings of both losses will be.

    Args:
        law: fitted, with replicates, to earlier runs trained as this one is, of other ranks or seeds.
        P: tuned parameters of this run.
        steps, L_ft, L_f: of its readings so far, [M]. Those before the steps that the law was fitted to are left out,
            and what is not finite; with none left the law alone speaks.
        end: the run's last step.
        interval: the share of runs that are to end inside.

    Returns:
        Of L_ft and of L_f, nats per token.

    Raises:
        ConfigError: the law has no replicates to tell its uncertainty, or this run does not follow it.
    """
    if not len(law.draws_):
        raise ConfigError("the law has no replicates to tell its uncertainty", "fit it to more runs, with replicates")
    first, tail = law.first_N_, float(stats.norm.ppf((1 + interval) / 2))
    found = []
    for side, values in enumerate((L_ft, L_f)):
        seen_M, value_M = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
        kept_M = (seen_M >= first) & np.isfinite(value_M)
        places = np.append(seen_M[kept_M], float(end))
        band = law.predict(P=P, N=places, interval=_LEVEL)[side]
        spread = (np.asarray(band.high) - np.asarray(band.low)) / (2 * _HALF)
        own = np.outer(spread, spread) * np.exp(-np.abs(np.subtract.outer(np.log(places), np.log(places))))
        noise = float(np.std(law.residuals_[side]))
        residual_M = value_M[kept_M] - band.value[:-1]
        _refuse_another_kind(residual_M / np.hypot(spread[:-1], noise), seen_M[kept_M])
        mean, variance = _conditioned(own, residual_M, noise)
        middle, half = float(band.value[-1] + mean), tail * float(np.sqrt(variance + noise**2))
        found.append(Prediction(middle, middle - half, middle + half))
    return found[0], found[1]


def _refuse_another_kind(deviation_M: Floats, steps_M: Floats) -> None:
    if len(deviation_M) and np.abs(deviation_M).max() > _FAR:
        worst = int(np.abs(deviation_M).argmax())
        off = f"{deviation_M[worst]:+.1f} standard deviations off it at step {steps_M[worst]:.0f}"
        raise ConfigError(
            f"this run does not follow the law: it is {off}",
            "fit the law to runs trained as this one is (same data, schedule, λ and old text)",
        )


def _conditioned(covariance: Floats, residual_M: Floats, noise: float) -> tuple[float, float]:
    """Mean and variance of the last place of a process, given the places before it under noise."""
    if not len(residual_M):
        return 0.0, float(covariance[-1, -1])
    seen = covariance[:-1, :-1] + noise**2 * np.eye(len(residual_M))
    weights = np.linalg.solve(seen, covariance[:-1, -1])
    return float(weights @ residual_M), float(covariance[-1, -1] - weights @ covariance[:-1, -1])
