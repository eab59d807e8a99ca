"""What figures of the laws show, as numbers: points by P, the line, the joint law along the steps; the ends of runs."""

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
        the `fit` as the same three columns; `line`: `c`, `s`, `r2` and both ends' `L_ft`; `joint`: its two R², or why
        there is none. Losses in nats per token.

    Raises:
        ConfigError: not even a line can be fitted.
    """
    line = LineFit(bootstraps=0).fit(runs)
    joint: JointFit | None = None
    try:
        joint = JointFit(bootstraps=0).fit(runs)
        said: Any = list(joint.r2_)
    except ConfigError as error:
        said = error.what
    return {
        "by_P": [_of_size(runs, size, joint) for size in runs.sizes],
        "line": {**line.params_, "r2": line.r2_, "L_ft": [float(runs.L_ft.min()), float(runs.L_ft.max())]},
        "joint": said,
    }


def run_ends(runs: ReplayRuns) -> dict[str, Any]:
    """Where runs of different replay end.

    Returns:
        `runs`: of each run its `P`, `tokens`, `lambda` and, at its last step, `L_ft` and `L_f`, ascending in the first
        three; and `L_f_base`. Losses in nats per token.
    """
    found = []
    for run in sorted(set(runs.run.tolist())):
        own = np.flatnonzero(runs.run == run)
        last = int(own[np.argmax(runs.N[own])])
        columns = {"P": runs.P, "tokens": runs.tokens, "lambda": runs.lambda_, "L_ft": runs.L_ft, "L_f": runs.L_f}
        found.append({name: float(column[last]) for name, column in columns.items()})
    return {"runs": sorted(found, key=lambda of: tuple(of.values())), "L_f_base": runs.L_f_base}


def _of_size(runs: Runs, size: float, joint: JointFit | None) -> dict[str, Any]:
    some = runs.where(np.equal(runs.P, size))
    order = np.lexsort((some.N, some.run))
    found: dict[str, Any] = {"P": size, "run": some.run[order].tolist()}
    found |= {name: getattr(some, name)[order].tolist() for name in ("N", "L_ft", "L_f")}
    if joint is not None:
        steps = np.geomspace(some.N.min(), some.N.max(), _POINTS)
        said = joint.law_.predict(P=size, N=steps)
        found["fit"] = {"N": steps.tolist(), "L_ft": said.L_ft.tolist(), "L_f": said.L_f.tolist()}
    return found
