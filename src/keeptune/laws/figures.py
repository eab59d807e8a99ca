"""Figures of runs and laws, as in the papers, and the data that they show.

- `laws_figure`: Kalajdzievski 2024 (arXiv 2401.05605), figures 2 and 3: forgetting against task loss with the line, and
  both losses along the steps; readings dotted, the joint law solid, one color per rank.
- `frontier_figure`: Marek et al. 2026 (arXiv 2605.26097): each run moves from the base to a lower task loss, and its
  rise is what it forgets.
- `replay_frontier_figure`: from the same paper, the frontier that λ traces: the ends of runs with different λ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
from matplotlib.figure import Figure

from keeptune.errors import ConfigError
from keeptune.laws.joint.fit import JointFit, LineFit
from keeptune.laws.readings import ReplayRuns, Runs
from keeptune.plot_style import COLOURS, COLUMN, GREY, MARKS, PAGE, style

_TASK = "task loss $L_{ft}$ (nats per token)"
_FORGETTING = "forgetting $L_f$ (nats per token)"
_STEPS = "update steps $N$"
_PARAMETERS = "tuned parameters $P$"


class _Small(TypedDict):
    textcoords: Literal["offset points"]
    fontsize: int
    color: str


_SMALL: _Small = {"textcoords": "offset points", "fontsize": 6, "color": GREY}
# Points of a fitted curve.
_POINTS = 100
# With more readings than this, only some along a run have markers.
_MARKED = 40


Loss = Literal["L_ft", "L_f"]


class Curve(TypedDict):
    """Columns of one length; losses in nats per token."""

    N: list[float]
    L_ft: list[float]
    L_f: list[float]


class OfSize(Curve):
    """The points of one P, by run in the order of steps."""

    P: float
    run: list[int]
    fit: NotRequired[Curve]
    """The joint law."""


class DrawnLine(TypedDict):
    """The line L_f = s − c·L_ft."""

    c: float
    s: float
    r2: float
    L_ft: list[float]
    """Of both ends."""


class Drawing(TypedDict):
    """The data of the figures of runs."""

    by_P: list[OfSize]
    """P ascending."""
    line: DrawnLine
    joint: tuple[float, float] | str
    """Both R² of the joint law, or why there is none."""


RunEnd = TypedDict("RunEnd", {"P": float, "tokens": float, "lambda": float, "L_ft": float, "L_f": float})
"""The last reading of a run; losses in nats per token."""


class RunEnds(TypedDict):
    """The ends of runs that differ in replay."""

    runs: list[RunEnd]
    """Ascending in P, tokens and λ."""
    L_f_base: float


def drawing(runs: Runs) -> Drawing:
    """The data of the figures of runs: points by P, the line, the joint law along the steps.

    Raises:
        ConfigError: not even a line can be fitted.
    """
    line = LineFit(bootstraps=0).fit(runs)
    joint: JointFit | None = None
    r2: tuple[float, float] | str
    try:
        joint = JointFit(bootstraps=0).fit(runs)
        r2 = joint.r2_
    except ConfigError as error:
        r2 = error.what
    ends = [float(runs.L_ft.min()), float(runs.L_ft.max())]
    by_P = [_of_size(runs, size, joint) for size in runs.sizes]
    drawn: DrawnLine = {"c": line.law_.c, "s": line.law_.s, "r2": line.r2_, "L_ft": ends}
    return {"by_P": by_P, "line": drawn, "joint": r2}


def _of_size(runs: Runs, size: float, joint: JointFit | None) -> OfSize:
    some = runs.where(np.equal(runs.P, size))
    order = np.lexsort((some.N, some.run))
    N, L_ft, L_f = (column[order].tolist() for column in (some.N, some.L_ft, some.L_f))
    points: OfSize = {"P": size, "run": some.run[order].tolist(), "N": N, "L_ft": L_ft, "L_f": L_f}
    if joint is not None:
        steps = np.geomspace(some.N.min(), some.N.max(), _POINTS)
        predicted = joint.law_.predict(P=size, N=steps)
        points["fit"] = {"N": steps.tolist(), "L_ft": predicted.L_ft.tolist(), "L_f": predicted.L_f.tolist()}
    return points


def run_ends(runs: ReplayRuns) -> RunEnds:
    """The ends of runs that differ in replay."""
    last = [max(np.flatnonzero(runs.run == run), key=lambda place: runs.N[place]) for run in np.unique(runs.run)]
    columns = (runs.P, runs.tokens, runs.lambda_, runs.L_ft, runs.L_f)
    ends: list[RunEnd] = [
        {"P": P, "tokens": tokens, "lambda": weight, "L_ft": L_ft, "L_f": L_f}
        for P, tokens, weight, L_ft, L_f in sorted(tuple(float(of[place]) for of in columns) for place in last)
    ]
    return {"runs": ends, "L_f_base": runs.L_f_base}


def laws_figure(drawing: Drawing) -> Figure:
    """Three panels of what `drawing` returns."""
    with style():
        figure = Figure(figsize=(PAGE, 2.6))
        panels = figure.subplots(1, 3)
        laws_panels(panels, drawing)
        legend(figure, panels[0], columns=6)
    return figure


def laws_panels(panels: Sequence[Any], drawing: Drawing) -> None:
    """What `drawing` returns on three axes: forgetting against task loss, and each loss along the steps."""
    cost, learned, forgotten = panels
    for place, of in enumerate(drawing["by_P"]):
        look = _look(place)
        cost.plot(of["L_ft"], of["L_f"], linestyle="none", label=_size(of["P"]), **look)
        losses: tuple[tuple[Any, Loss], ...] = ((learned, "L_ft"), (forgotten, "L_f"))
        for panel, loss in losses:
            # Join the readings of one run, but not those of different runs of one rank.
            for steps, values in _each_run(of, "N", loss):
                panel.plot(steps, values, linestyle=":", linewidth=0.8, alpha=0.8, **_marks(look, len(steps)))
            if "fit" in of:
                panel.plot(of["fit"]["N"], of["fit"][loss], color=look["color"])
    line, joint = drawing["line"], drawing["joint"]
    ends = np.array(line["L_ft"])
    cost.plot(ends, line["s"] - line["c"] * ends, color=GREY, zorder=3)
    cost.set(xlabel=_TASK, ylabel=_FORGETTING, title=f"What learning costs: $R^2$ {line['r2']:.3f}")
    r2 = [" (no joint law)"] * 2 if isinstance(joint, str) else [f": $R^2$ {value:.3f}" for value in joint]
    learned.set(xlabel=_STEPS, ylabel=_TASK, title=f"What is learned{r2[0]}")
    forgotten.set(xlabel=_STEPS, ylabel=_FORGETTING, title=f"What is forgotten{r2[1]}")


def frontier_figure(drawing: Drawing) -> Figure:
    """One panel of what `drawing` returns: a trajectory per run, with an arrow in the direction of time."""
    with style():
        figure = Figure(figsize=(COLUMN, 3.1))
        panel = figure.subplots()
        for place, of in enumerate(drawing["by_P"]):
            look = _look(place)
            for number, (task, forgetting) in enumerate(_each_run(of, "L_ft", "L_f")):
                # One entry of the legend for all runs of one size.
                label = None if number else _size(of["P"])
                panel.plot(task, forgetting, linewidth=1.0, label=label, **_marks(look, len(task)))
                if len(task) > 1:
                    _arrow(panel, task, forgetting, look["color"])
        _finish_frontier(figure, panel, "Learning and forgetting as training goes on", columns=3)
    return figure


def replay_frontier_figure(ends: RunEnds) -> Figure:
    """One panel of what `run_ends` returns: the end of each run, with a marker by λ.

    Runs of one size and pool are joined in the order of λ.
    """
    with style():
        figure = Figure(figsize=(COLUMN, 3.1))
        panel = figure.subplots()
        runs = ends["runs"]
        ways = sorted({(of["P"], of["tokens"]) for of in runs if of["lambda"] > 0})
        for P, tokens in ways:
            task, forgetting = _way(runs, P, tokens)
            panel.plot(task, forgetting, color=GREY, linewidth=0.8, linestyle=":", zorder=1)
            if len(ways) > 1:
                size = f"$P$ {_size(P)}, " if len({P for P, _ in ways}) > 1 else ""
                panel.annotate(f"{size}{_size(tokens)} tokens", (task[-1], forgetting[-1]), xytext=(-2, -9), **_SMALL)
        for place, weight in enumerate(sorted({of["lambda"] for of in runs})):
            own = [of for of in runs if of["lambda"] == weight]
            task, forgetting = [of["L_ft"] for of in own], [of["L_f"] for of in own]
            panel.plot(task, forgetting, linestyle="none", label=f"{weight:g}", **_look(place))
        base, across = ends["L_f_base"], ("axes fraction", "data")
        panel.axhline(base, color=GREY, linewidth=0.8, linestyle="--")
        panel.annotate("the base", (0.0, base), xycoords=across, xytext=(3, 3), **_SMALL)
        title = "weight of the replay term $λ$"
        _finish_frontier(figure, panel, "Where runs of different $λ$ end", columns=6, legend_title=title)
    return figure


def _way(runs: Sequence[RunEnd], P: float, tokens: float) -> list[list[float]]:
    """Medians of both losses by λ, starting without replay."""
    own = [of for of in runs if of["P"] == P and (of["tokens"] == tokens or of["lambda"] == 0)]
    alike = [[of for of in own if of["lambda"] == weight] for weight in sorted({of["lambda"] for of in own})]
    losses: tuple[Loss, ...] = ("L_ft", "L_f")
    return [[float(np.median([of[loss] for of in some])) for some in alike] for loss in losses]


def _each_run(of: OfSize, *names: Literal["N", "L_ft", "L_f"]) -> Iterator[list[list[float]]]:
    """Columns of the points of one size, run by run."""
    for run in dict.fromkeys(of["run"]):
        own = [at for at, other in enumerate(of["run"]) if other == run]
        yield [[of[name][at] for at in own] for name in names]


class _Look(TypedDict):
    color: str
    marker: str


class _Marks(_Look):
    markersize: float
    markevery: int


def _look(place: int) -> _Look:
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKS[place % len(MARKS)]}


def _marks(look: _Look, readings: int) -> _Marks:
    return {**look, "markersize": 2.6, "markevery": max(readings // _MARKED, 1)}


def _arrow(panel: Any, x: Sequence[float], y: Sequence[float], color: str) -> None:
    """An arrow to the last reading over the last quarter of the run, because the last step alone is noisy."""
    back = -1 - max(len(x) // 4, 1)
    look = {"arrowstyle": "-|>", "color": color, "mutation_scale": 12, "shrinkA": 0, "shrinkB": 0, "linewidth": 1.0}
    panel.annotate("", (x[-1], y[-1]), (x[back], y[back]), arrowprops=look)


def _size(P: float) -> str:
    """12,500,000 as 12.5 M."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if unit <= P:
            return f"{P / unit:.3g}{name}"
    return f"{P:.0f}"


def _finish_frontier(figure: Figure, panel: Any, title: str, columns: int, legend_title: str = _PARAMETERS) -> None:
    panel.set(xlabel=_TASK + ", better →", ylabel=_FORGETTING, title=title)
    # So that time runs to the right, as the task loss falls.
    panel.invert_xaxis()
    legend(figure, panel, columns, legend_title)


def legend(figure: Figure, panel: Any, columns: int, title: str = _PARAMETERS) -> None:
    """A legend of the markers in `panel`, below all panels."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, title=title, title_fontsize=7, loc="outside lower center", ncols=columns)
