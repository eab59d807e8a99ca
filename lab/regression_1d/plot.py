"""Draw figure.svg and figure.png, and state the claims, from results.csv alone.

    python lab/regression_1d/plot.py

Shapes: M members, G points of the grid.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import numpy.typing as npt
from grid import Row, draw
from stats import Claim, bootstrap

HERE = Path(__file__).resolve().parent
Array = npt.NDArray[np.float64]
OLD = (-3.2, -0.08)
SIGMA = 0.08
"""The KL's width: functions closer than this are one and the same to it."""


def functions(rows: list[Row], lambda_: float) -> tuple[Array, Array, Array]:
    """The grid [G], and every member's function on it before and after the new data, [M, G]."""
    own = [row for row in rows if row["kind"] == "function" and row["lambda"] == lambda_]
    members = 1 + max(row["member"] for row in own)
    table = {
        key: np.array([row[key] for row in own], dtype=float).reshape(members, -1) for key in ("x", "before", "after")
    }
    return table["x"][0], table["before"], table["after"]


def figure(rows: list[Row]) -> Any:
    """Two panels, without and with KL: the ensemble before and after, its middle half shaded, and both data sets."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 — claims need no pictures

    from keeptune.plot_style import BLUE, GREY, ORANGE, PAGE  # noqa: PLC0415

    drawn, axes = plt.subplots(1, 2, figsize=(PAGE, 2.7), sharey=True)
    for axis, lambda_, title in ((axes[0], 0.0, "new data alone"), (axes[1], 1.0, "new data and KL on the old inputs")):
        x_G, before_MG, after_MG = functions(rows, lambda_)
        for kind, colour, mark in (("old data", GREY, "o"), ("new data", ORANGE, "^")):
            points = [(row["x"], row["before"]) for row in rows if row["kind"] == kind]
            axis.plot(*zip(*points, strict=True), mark, color=colour, markersize=2.6, alpha=0.8, label=kind)
        axis.plot(
            x_G, np.median(before_MG, axis=0), color="black", linestyle="--", linewidth=1.0, label="before, median"
        )
        low_G, high_G = np.quantile(after_MG, [0.25, 0.75], axis=0)
        axis.fill_between(
            x_G, low_G, high_G, color=BLUE, alpha=0.25, linewidth=0, label="after, middle half of members"
        )
        axis.plot(x_G, np.median(after_MG, axis=0), color=BLUE, label="after, median")
        axis.set_title(title)
        axis.set_xlabel("input x")
    axes[0].set_ylabel("output f(x)")
    axes[0].set_ylim(-3.2, 3.2)
    handles, labels = axes[0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=5)
    return drawn


def drift(rows: list[Row], lambda_: float) -> Any:
    """RMS over the old inputs of f after − f before, averaged over members; as a function of the members' indices."""
    _, before_MG, after_MG = old_side(rows, lambda_)
    drift_M = np.sqrt(((after_MG - before_MG) ** 2).mean(axis=1))
    return lambda members: drift_M[members].mean()


def spread(rows: list[Row], lambda_: float) -> Any:
    """The members' standard deviation on the old inputs after the new data, as a multiple of that before."""
    _, before_MG, after_MG = old_side(rows, lambda_)
    return lambda members: after_MG[members].std(axis=0).mean() / before_MG[members].std(axis=0).mean()


def old_side(rows: list[Row], lambda_: float) -> tuple[Array, Array, Array]:
    """As `functions`, on the old inputs' side."""
    x_G, before_MG, after_MG = functions(rows, lambda_)
    inside_G = (x_G >= OLD[0]) & (x_G <= OLD[1])
    return x_G[inside_G], before_MG[:, inside_G], after_MG[:, inside_G]


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's figure shows; intervals from resampling the ensemble's members."""
    units = len(functions(rows, 0.0)[1])

    def claim(text: str, measure: str, statistic: Any, **bound: float) -> Claim:
        ours = bootstrap(statistic, units)
        return Claim(claim=text, paper="figure only", measure=f"{measure}, bootstrap over members", ours=ours, **bound)

    far, near = "drift on the old side without KL", "drift on the old side with KL"
    wide, narrow = (
        "spread on the old side, after / before, without KL",
        "spread on the old side, after / before, with KL",
    )
    return [
        claim("new data alone move the function where the old data were", far, drift(rows, 0.0), above=SIGMA),
        claim("with a function-space KL it stays there", near, drift(rows, 1.0), below=SIGMA),
        claim("without KL the ensemble's spread explodes there", wide, spread(rows, 0.0), above=2.0),
        claim("with KL the spread stays", narrow, spread(rows, 1.0), below=2.0),
    ]


if __name__ == "__main__":
    draw(HERE, figure)
