"""How far a fit is off on readings that it has not seen: other ranks, and the end of every run."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from keeptune.laws.forms import Floats
from keeptune.laws.joint.fit import JointFit, refuse_few
from keeptune.laws.readings import Runs
from keeptune.log import track


class Misses(TypedDict):
    """Median errors |said − read|/read of the readings left out, and how many those are."""

    L_ft: float
    L_f: float
    readings: int


def leave_one_rank_out(runs: Runs) -> dict[float, Misses]:
    """Misses of the joint law for each P, fitted without its runs; the least and the largest P are extrapolated to.

    Raises:
        ConfigError: fewer than four distinct P, since the law needs three.
    """
    for size in runs.sizes:
        refuse_few(runs.where(np.not_equal(runs.P, size)))
    found = {}
    with track("Leave one rank out", len(runs.sizes), "ranks") as task:
        for size in runs.sizes:
            found[size] = _misses(runs, np.equal(runs.P, size))
            task.advance()
    return found


def last_steps(runs: Runs, share: float = 0.3) -> Misses:
    """Misses on the last `share` of each run's readings, of the joint law fitted to those before.

    Raises:
        ConfigError: too few readings are left to fit.
    """
    last: NDArray[np.bool_] = np.zeros(len(runs), dtype=bool)
    for run in set(runs.run.tolist()):
        places = np.flatnonzero(runs.run == run)
        in_order = places[np.argsort(runs.N[places], kind="stable")]
        last[in_order[len(places) - max(round(share * len(places)), 1) :]] = True
    return _misses(runs, last)


def _misses(runs: Runs, unseen: NDArray[np.bool_]) -> Misses:
    kept, left = runs.where(~unseen), runs.where(unseen)
    said = JointFit(bootstraps=0).fit(kept).predict(P=left.P, N=left.N)
    return Misses(
        L_ft=_median_error(said.L_ft.value, left.L_ft),
        L_f=_median_error(said.L_f.value, left.L_f),
        readings=len(left),
    )


def _median_error(said: Floats, seen: Floats) -> float:
    return float(np.median(np.abs(said - seen) / np.abs(seen)))
