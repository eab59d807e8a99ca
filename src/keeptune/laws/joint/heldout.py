"""Errors of the joint law on held-out readings: other ranks, and the end of every run."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from keeptune.laws.forms import Floats
from keeptune.laws.joint.fit import JointFit, refuse_few
from keeptune.laws.readings import Runs
from keeptune.log import track


class Misses(TypedDict):
    """Median errors |predicted − observed|/observed on the held-out readings, and their number."""

    L_ft: float
    L_f: float
    readings: int


def leave_one_rank_out(runs: Runs) -> dict[float, Misses]:
    """Errors for each P of the joint law fitted without its runs. The smallest and largest P are extrapolated.

    Raises:
        ConfigError: fewer than four distinct P, since the law needs three.
    """
    for size in runs.sizes:
        refuse_few(runs.where(np.not_equal(runs.P, size)))
    errors = {}
    with track("Leave one rank out", len(runs.sizes), "ranks") as task:
        for size in runs.sizes:
            errors[size] = _misses(runs, np.equal(runs.P, size))
            task.advance()
    return errors


def last_steps(runs: Runs, share: float = 0.3) -> Misses:
    """Errors on the last `share` of each run's readings, of the joint law fitted to the readings before.

    Raises:
        ConfigError: too few readings are left to fit.
    """
    last: NDArray[np.bool_] = np.zeros(len(runs), dtype=bool)
    for run in set(runs.run.tolist()):
        places = np.flatnonzero(runs.run == run)
        in_order = places[np.argsort(runs.N[places], kind="stable")]
        last[in_order[len(places) - max(round(share * len(places)), 1) :]] = True
    return _misses(runs, last)


def _misses(runs: Runs, held_out: NDArray[np.bool_]) -> Misses:
    kept, left = runs.where(~held_out), runs.where(held_out)
    predicted = JointFit(bootstraps=0).fit(kept).predict(P=left.P, N=left.N)
    return Misses(
        L_ft=_median_error(predicted.L_ft.value, left.L_ft),
        L_f=_median_error(predicted.L_f.value, left.L_f),
        readings=len(left),
    )


def _median_error(predicted: Floats, observed: Floats) -> float:
    return float(np.median(np.abs(predicted - observed) / np.abs(observed)))
