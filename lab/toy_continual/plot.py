"""Figure and claims of four tasks in sequence.

Shapes: S seeds, P points along the training.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from common.drawing import legend_below, panels
from common.grid import Row
from common.small.curves import values
from common.stats import Claim, over_seeds
from keeptune.plot_style import COLOURS, GREY
from toy_continual.tasks import ABOVE_999, TASKS

METHODS = {
    "none": "without replay",
    "ntp": "self-replay, next-token loss",
    "kl": "self-replay, KL",
}


def figure(rows: list[Row]) -> Any:
    """Accuracy on each task along the training, a panel per method: thin lines are seeds, thick ones their mean.

    Each task has the same width, whatever its number of steps, which stands below it.
    """
    drawn, axes = panels(2.6, 3, sharey=True)
    ends = [max(row["step"] for row in rows if row["learning"] == task) for task in TASKS]
    steps = [end - start for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    for axis, (method, title) in zip(axes, METHODS.items(), strict=True):
        for boundary in range(1, len(TASKS)):
            axis.axvline(boundary, color=GREY, linewidth=0.7, linestyle=":")
        lines = ("-", "--", "-.", (0, (1, 1)), (0, (4, 1, 1, 1)))
        for colour, line, task in zip(COLOURS, lines, (*TASKS, ABOVE_999), strict=False):
            curves = [curve(rows, method, seed, task) for seed in values(rows, "seed")]
            place = np.interp([step for step, _ in curves[0]], [0, *ends], range(len(TASKS) + 1))
            accuracy_SP = np.array([[accuracy for _, accuracy in points] for points in curves])
            axis.plot(place, accuracy_SP.T, color=colour, linewidth=0.4, alpha=0.6)
            axis.plot(place, accuracy_SP.mean(axis=0), color=colour, linestyle=line, label=task)
        axis.set_title(title)
        names = [f"{task}\n{own} steps" for task, own in zip(TASKS, steps, strict=True)]
        axis.set_xticks([number + 0.5 for number in range(len(TASKS))], names)
        axis.tick_params(axis="x", length=0, labelsize=6)
        axis.grid(visible=False, axis="x")
        axis.set_xlabel("task in training")
        axis.set_xlim(0, len(TASKS))
        axis.set_ylim(-0.03, 1.03)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes[0].set_ylabel("held-out rows answered right")
    title = f"accuracy on (thin: each of {len(values(rows, 'seed'))} seeds, thick: their mean)"
    legend_below(drawn, axes[0], title=title, ncols=5, handlelength=2.6)
    return drawn


def curve(rows: list[Row], method: str, seed: int, task: str) -> list[tuple[int, float]]:
    """(step, accuracy) of one task in one run."""
    own = (row for row in rows if (row["method"], row["seed"], row["task"]) == (method, seed, task))
    return [(row["step"], row["accuracy"]) for row in own]


def final(rows: list[Row], method: str, *tasks: str) -> list[list[float]]:
    """Accuracy on these tasks at the end, for each seed."""
    return [[curve(rows, method, seed, task)[-1][1] for task in tasks] for seed in values(rows, "seed")]


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's figure shows, one number per seed; and the same with KL, which it does not show."""
    ends = "add 21 %, reversal 0 %, sort 1 % at the end"

    def claim(text: str, paper: str | None, which: str, accuracies: list[float], **bound: Any) -> Claim:
        ours = over_seeds(accuracies, 0.0, 1.0)
        return Claim(claim=text, paper=paper, measure=f"accuracy on the {which}", ours=ours, **bound)

    def kept(name: str, method: str, paper: str | None) -> Claim:
        worst = [min(accuracies) for accuracies in final(rows, method, *TASKS)]
        text = f"{name} on self-generated replay keeps all four tasks"
        return claim(text, paper, "worst of the four tasks", worst, above=0.97)

    return [
        claim(
            "without replay, learning later tasks ruins the earlier ones",
            ends,
            "best of the three earlier tasks",
            [max(accuracies) for accuracies in final(rows, "none", *TASKS[:-1])],
            below=0.30,
        ),
        claim(
            "without replay, they are ruined where the last task's answers are not theirs too",
            f"{ends}, on all questions",
            "best of addition with sums above 999, reversal and sort",
            [max(accuracies) for accuracies in final(rows, "none", ABOVE_999, "reversal", "sort")],
            below=0.30,
        ),
        kept("next-token loss", "ntp", "≈ 100 % on each"),
        kept("KL", "kl", None),
    ]
