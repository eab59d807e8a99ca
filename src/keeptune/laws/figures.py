"""What a figure of the laws shows, as numbers: points by P, the line, and the joint law along the steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from keeptune.errors import ConfigError
from keeptune.laws.fit import JointFit, LineFit
from keeptune.laws.rows import Runs

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
