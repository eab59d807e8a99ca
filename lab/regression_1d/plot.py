"""Figure and claims of one function learned after another.

Shapes: M members, G points of the grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from common.drawing import legend_below, panels
from common.grid import Row
from common.stats import Claim, bootstrap
from keeptune.plot_style import BLUE, GREY, ORANGE

Array = npt.NDArray[np.float64]
OLD = (-3.2, -0.08)
SIGMA = 0.08
"""Width of the KL's Gaussians: it hardly tells functions apart that are closer than this."""


def functions(rows: list[Row], lambda_: float) -> tuple[Array, Array, Array]:
    """The grid [G], and every member's function on it before and after the new data, [M, G]."""
    own = [row for row in rows if row["kind"] == "function" and row["lambda"] == lambda_]
    members = 1 + max(row["member"] for row in own)
    x_MG, before_MG, after_MG = (
        np.array([row[key] for row in own], dtype=float).reshape(members, -1) for key in ("x", "before", "after")
    )
    return x_MG[0], before_MG, after_MG


def figure(rows: list[Row]) -> Any:
    """Two panels, without and with KL: the ensemble before and after, its middle half shaded, and both data sets."""
    drawn, axes = panels(2.7, sharey=True)
    titles = {0.0: "new data alone", 1.0: "new data and KL on the old inputs"}
    for axis, (lambda_, title) in zip(axes, titles.items(), strict=True):
        x_G, before_MG, after_MG = functions(rows, lambda_)
        for kind, colour, mark in (("old data", GREY, "o"), ("new data", ORANGE, "^")):
            points = [(row["x"], row["before"]) for row in rows if row["kind"] == kind]
            axis.plot(*zip(*points, strict=True), mark, color=colour, markersize=2.6, alpha=0.8, label=kind)
        look: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1.0}
        axis.plot(x_G, np.median(before_MG, axis=0), label="before, median", **look)
        low_G, high_G = np.quantile(after_MG, [0.25, 0.75], axis=0)
        look = {"color": BLUE, "alpha": 0.25, "linewidth": 0}
        axis.fill_between(x_G, low_G, high_G, label="after, middle half of members", **look)
        axis.plot(x_G, np.median(after_MG, axis=0), color=BLUE, label="after, median")
        axis.set_title(title)
        axis.set_xlabel("input x")
    axes[0].set_ylabel("output f(x)")
    axes[0].set_ylim(-3.2, 3.2)
    legend_below(drawn, axes[0], ncols=5)
    return drawn


def old_side(rows: list[Row], lambda_: float) -> tuple[Array, Array]:
    """Every member's function before and after, on the grid's points among the old inputs."""
    x_G, before_MG, after_MG = functions(rows, lambda_)
    inside_G = (x_G >= OLD[0]) & (x_G <= OLD[1])
    return before_MG[:, inside_G], after_MG[:, inside_G]


def drift(rows: list[Row], lambda_: float) -> Any:
    """RMS over the old inputs of f after − f before, averaged over members, as a function of the members' indices."""
    before_MG, after_MG = old_side(rows, lambda_)
    drift_M = np.sqrt(((after_MG - before_MG) ** 2).mean(axis=1))
    return lambda members: drift_M[members].mean()


def spread(rows: list[Row], lambda_: float) -> Any:
    """The members' standard deviation on the old inputs after the new data, as a multiple of that before."""
    before_MG, after_MG = old_side(rows, lambda_)
    return lambda members: after_MG[members].std(axis=0).mean() / before_MG[members].std(axis=0).mean()


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's figure shows; intervals from resampling the ensemble's members."""
    units = len(functions(rows, 0.0)[1])

    def claim(text: str, paper: str, measure: str, statistic: Any, **bound: Any) -> Claim:
        ours = bootstrap(statistic, units)
        return Claim(claim=text, paper=paper, measure=f"{measure}, bootstrap over members", ours=ours, **bound)

    moved, widened = "drift on the old side", "spread on the old side, after / before,"
    alone, kept = ((drift(rows, lambda_), spread(rows, lambda_)) for lambda_ in (0.0, 1.0))
    return [
        claim(
            "new data alone move the function where the old data were",
            "the median curve by .51 (their data)",
            f"{moved} without KL",
            alone[0],
            above=SIGMA,
        ),
        claim(
            "with a function-space KL it stays there",
            "the median curve by .065 (their data)",
            f"{moved} with KL",
            kept[0],
            below=SIGMA,
        ),
        claim(
            "without KL the ensemble's spread explodes there",
            "its middle half 2.6 wide (their data)",
            f"{widened} without KL",
            alone[1],
            above=2.0,
        ),
        claim(
            "with KL the spread stays",
            "its middle half .23 wide (their data)",
            f"{widened} with KL",
            kept[1],
            below=2.0,
        ),
    ]
