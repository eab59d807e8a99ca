"""The data of the figures: points by P, the line, the joint law along the steps, and the ends of runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from keeptune.errors import ConfigError
from keeptune.laws.joint.fit import JointFit, LineFit
from keeptune.laws.readings import ReplayRuns, Runs

_POINTS = 100


def drawing(runs: Runs) -> dict[str, Any]:
    """The data of the figure.

    Returns:
        `by_P`: for each P ascending, its points `N`, `L_ft`, `L_f` by run in the order of steps and, with a joint law,
        the `fit` as the same three columns; `line`: `c`, `s`, `r2` and the `L_ft` of both ends; `joint`: its two R², or
        the reason why there is none. Losses in nats per token.

    Raises:
        ConfigError: not even a line can be fitted.
    """
    line = LineFit(bootstraps=0).fit(runs)
    joint: JointFit | None = None
    try:
        joint = JointFit(bootstraps=0).fit(runs)
        r2: Any = list(joint.r2_)
    except ConfigError as error:
        r2 = error.what
    return {
        "by_P": [_of_size(runs, size, joint) for size in runs.sizes],
        "line": {**line.params_, "r2": line.r2_, "L_ft": [float(runs.L_ft.min()), float(runs.L_ft.max())]},
        "joint": r2,
    }


def run_ends(runs: ReplayRuns) -> dict[str, Any]:
    """The ends of runs that differ in replay.

    Returns:
        `runs`: for each run its `P`, `tokens`, `lambda` and, at its last step, `L_ft` and `L_f`, ascending in the first
        three; and `L_f_base`. Losses in nats per token.
    """
    ends = []
    for run in sorted(set(runs.run.tolist())):
        own = np.flatnonzero(runs.run == run)
        last = int(own[np.argmax(runs.N[own])])
        columns = {"P": runs.P, "tokens": runs.tokens, "lambda": runs.lambda_, "L_ft": runs.L_ft, "L_f": runs.L_f}
        ends.append({name: float(column[last]) for name, column in columns.items()})
    return {"runs": sorted(ends, key=lambda of: tuple(of.values())), "L_f_base": runs.L_f_base}


def _of_size(runs: Runs, size: float, joint: JointFit | None) -> dict[str, Any]:
    some = runs.where(np.equal(runs.P, size))
    order = np.lexsort((some.N, some.run))
    points: dict[str, Any] = {"P": size, "run": some.run[order].tolist()}
    points |= {name: getattr(some, name)[order].tolist() for name in ("N", "L_ft", "L_f")}
    if joint is not None:
        steps = np.geomspace(some.N.min(), some.N.max(), _POINTS)
        predicted = joint.law_.predict(P=size, N=steps)
        points["fit"] = {"N": steps.tolist(), "L_ft": predicted.L_ft.tolist(), "L_f": predicted.L_f.tolist()}
    return points
