"""Figures of runs and laws, as in the papers.

- `laws_figure`: Kalajdzievski 2024 (arXiv 2401.05605), figures 2 and 3: forgetting against task loss with the line, and
  both losses along the steps; readings dotted, the joint law solid, one color per rank.
- `frontier_figure`: Marek et al. 2026 (arXiv 2605.26097): each run moves from the base to a lower task loss, and its
  rise is what it forgets.
- `replay_frontier_figure`: from the same paper, the frontier that λ traces: the ends of runs with different λ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keeptune.plot_style import COLOURS, COLUMN, GREY, MARKS, PAGE, style

_TASK = "task loss $L_{ft}$ (nats per token)"
_FORGETTING = "forgetting $L_f$ (nats per token)"
_STEPS = "update steps $N$"
_SMALL: dict[str, Any] = {"textcoords": "offset points", "fontsize": 6, "color": GREY}
# With more readings than this, only some along a run have markers.
_MARKED = 40


def laws_figure(drawing: Mapping[str, Any]) -> Figure:
    """Three panels.

    Args:
        drawing: from `keeptune.laws.figures.drawing`.
    """
    with style():
        figure = Figure(figsize=(PAGE, 2.6))
        panels = figure.subplots(1, 3)
        laws_panels(panels, drawing)
        legend(figure, panels[0], columns=6)
    return figure


def laws_panels(panels: Sequence[Any], drawing: Mapping[str, Any]) -> None:
    """The three panels, on axes of the caller.

    Args:
        panels: for forgetting against task loss, task loss along the steps, forgetting along the steps.
        drawing: from `keeptune.laws.figures.drawing`.
    """
    cost, learned, forgotten = panels
    for place, of in enumerate(drawing["by_P"]):
        look = _look(place)
        cost.plot(of["L_ft"], of["L_f"], linestyle="none", label=_size(of["P"]), **look)
        for panel, loss in ((learned, "L_ft"), (forgotten, "L_f")):
            # Join the readings of one run, but not those of different runs of one rank.
            for run in dict.fromkeys(of["run"]):
                own = [at for at, other in enumerate(of["run"]) if other == run]
                steps, losses = ([of[name][at] for at in own] for name in ("N", loss))
                panel.plot(steps, losses, linestyle=":", linewidth=0.8, alpha=0.8, **_marks(look, len(own)))
            if "fit" in of:
                panel.plot(of["fit"]["N"], of["fit"][loss], color=look["color"])
    line = drawing["line"]
    ends = np.array(line["L_ft"])
    cost.plot(ends, line["s"] - line["c"] * ends, color=GREY, zorder=3)
    cost.set(xlabel=_TASK, ylabel=_FORGETTING, title=f"What learning costs: $R^2$ {line['r2']:.3f}")
    joint = drawing["joint"]
    r2 = [" (no joint law)"] * 2 if isinstance(joint, str) else [f": $R^2$ {value:.3f}" for value in joint]
    learned.set(xlabel=_STEPS, ylabel=_TASK, title=f"What is learned{r2[0]}")
    forgotten.set(xlabel=_STEPS, ylabel=_FORGETTING, title=f"What is forgotten{r2[1]}")


def frontier_figure(drawing: Mapping[str, Any]) -> Figure:
    """One panel: a trajectory per run, with an arrow in the direction of time.

    Args:
        drawing: from `keeptune.laws.figures.drawing`.
    """
    with style():
        figure = Figure(figsize=(COLUMN, 3.1))
        panel = figure.subplots()
        for place, of in enumerate(drawing["by_P"]):
            look, runs = _look(place), dict.fromkeys(of["run"])
            for run in runs:
                own = [at for at, other in enumerate(of["run"]) if other == run]
                task, forgetting = ([of[name][at] for at in own] for name in ("L_ft", "L_f"))
                label = _size(of["P"]) if run == next(iter(runs)) else None
                panel.plot(task, forgetting, linewidth=1.0, label=label, **_marks(look, len(own)))
                if len(own) > 1:
                    _arrow(panel, task, forgetting, look["color"])
        panel.set(xlabel=_TASK + ", better →", ylabel=_FORGETTING, title="Learning and forgetting as training goes on")
        # So that time runs to the right, as the task loss falls.
        panel.invert_xaxis()
        legend(figure, panel, columns=3)
    return figure


def replay_frontier_figure(ends: Mapping[str, Any]) -> Figure:
    """One panel: the end of each run, with a marker by λ. Runs of one size and pool are joined in the order of λ.

    Args:
        ends: from `keeptune.laws.figures.run_ends`.
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
            task, forgetting = ([of[name] for of in runs if of["lambda"] == weight] for name in ("L_ft", "L_f"))
            panel.plot(task, forgetting, linestyle="none", label=f"{weight:g}", **_look(place))
        panel.axhline(ends["L_f_base"], color=GREY, linewidth=0.8, linestyle="--")
        across = ("axes fraction", "data")
        panel.annotate("the base", (0.0, ends["L_f_base"]), xycoords=across, xytext=(3, 3), **_SMALL)
        panel.set(xlabel=_TASK + ", better →", ylabel=_FORGETTING, title="Where runs of different $λ$ end")
        panel.invert_xaxis()
        legend(figure, panel, columns=6, title="weight of the replay term $λ$")
    return figure


def _way(runs: Sequence[Mapping[str, Any]], P: float, tokens: float) -> tuple[list[float], list[float]]:
    """Medians of both losses by λ, starting without replay."""
    own = [of for of in runs if of["P"] == P and (of["tokens"] == tokens or of["lambda"] == 0)]
    weights = sorted({of["lambda"] for of in own})
    task, forgetting = (
        [float(np.median([of[loss] for of in own if of["lambda"] == weight])) for weight in weights]
        for loss in ("L_ft", "L_f")
    )
    return task, forgetting


def _look(place: int) -> dict[str, Any]:
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKS[place % len(MARKS)]}


def _marks(look: Mapping[str, Any], readings: int) -> dict[str, Any]:
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


def legend(figure: Figure, panel: Any, columns: int, title: str = "tuned parameters $P$") -> None:
    """A legend of the markers in `panel`, below all panels."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, title=title, title_fontsize=7, loc="outside lower center", ncols=columns)
