"""Draw figure.svg and figure.png, and state the claims, from results.csv alone.

    python lab/toy_continual/plot.py

Shapes: S seeds, P points along the training.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from grid import Row, draw
from stats import Claim, over_seeds

HERE = Path(__file__).resolve().parent
TASKS = ("add", "reversal", "sort", "modadd")
ABOVE_999 = "add, above 999"
METHODS = {
    "none": "without replay",
    "ntp": "self-replay, next-token loss",
    "kl": "self-replay, KL",
}


def figure(rows: list[Row]) -> Any:
    """Accuracy on each task along the training, a panel a method: a thin line a seed, a thick one their mean.

    Each task has the same width, whatever its number of steps, which stands below it.
    """
    import matplotlib.pyplot as plt  # noqa: PLC0415 — claims need no pictures

    from keeptune.plot_style import COLOURS, GREY, PAGE  # noqa: PLC0415

    drawn, axes = plt.subplots(1, 3, figsize=(PAGE, 2.6), sharey=True)
    ends = [max(row["step"] for row in rows if row["learning"] == task) for task in TASKS]
    starts = [0, *ends[:-1]]
    for axis, (method, title) in zip(axes, METHODS.items(), strict=True):
        for boundary in range(1, len(TASKS)):
            axis.axvline(boundary, color=GREY, linewidth=0.7, linestyle=":")
        lines = ("-", "--", "-.", (0, (1, 1)), (0, (4, 1, 1, 1)))
        for colour, line, task in zip(COLOURS, lines, (*TASKS, ABOVE_999), strict=False):
            curves = [curve(rows, method, seed, task) for seed in seeds(rows)]
            place = np.interp([step for step, _ in curves[0]], [0, *ends], range(len(TASKS) + 1))
            accuracy_SP = np.array([[accuracy for _, accuracy in points] for points in curves])
            axis.plot(place, accuracy_SP.T, color=colour, linewidth=0.4, alpha=0.6)
            axis.plot(place, accuracy_SP.mean(axis=0), color=colour, linestyle=line, label=task)
        axis.set_title(title)
        names = [f"{task}\n{end - start} steps" for task, start, end in zip(TASKS, starts, ends, strict=True)]
        axis.set_xticks([number + 0.5 for number in range(len(TASKS))], names)
        axis.tick_params(axis="x", length=0, labelsize=6)
        axis.grid(visible=False, axis="x")
        axis.set_xlabel("task in training")
        axis.set_xlim(0, len(TASKS))
        axis.set_ylim(-0.03, 1.03)
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes[0].set_ylabel("held-out rows answered right")
    handles, labels = axes[0].get_legend_handles_labels()
    title = f"accuracy on (thin: each of {len(seeds(rows))} seeds, thick: their mean)"
    drawn.legend(handles, labels, title=title, loc="outside lower center", ncols=5, handlelength=2.6)
    return drawn


def curve(rows: list[Row], method: str, seed: int, task: str) -> list[tuple[int, float]]:
    """(step, accuracy) of one task in one run."""
    own = (row for row in rows if (row["method"], row["seed"], row["task"]) == (method, seed, task))
    return [(row["step"], row["accuracy"]) for row in own]


def seeds(rows: list[Row]) -> list[int]:
    """The seeds that were run."""
    return sorted({row["seed"] for row in rows})


def final(rows: list[Row], method: str) -> list[dict[str, float]]:
    """Accuracy by task at the end, a seed at a time."""
    read = (*TASKS, ABOVE_999)
    return [{task: curve(rows, method, seed, task)[-1][1] for task in read} for seed in seeds(rows)]


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's figure shows, one number a seed."""
    found = [
        Claim(
            claim="without replay, learning later tasks ruins the earlier ones",
            paper="add 21 %, reversal 0 %, sort 1 % at the end",
            measure="accuracy on the best of the three earlier tasks",
            ours=over_seeds([max(end[task] for task in TASKS[:-1]) for end in final(rows, "none")], 0.0, 1.0),
            below=0.30,
        ),
        Claim(
            claim="without replay, they are ruined where the last task's answers are not theirs too",
            paper="add 21 %, reversal 0 %, sort 1 % at the end, on all questions",
            measure="accuracy on the best of addition with sums above 999, reversal and sort",
            ours=over_seeds(
                [max(end[task] for task in (ABOVE_999, "reversal", "sort")) for end in final(rows, "none")], 0.0, 1.0
            ),
            below=0.30,
        ),
    ]
    for method, name in (("ntp", "next-token loss on self-generated replay"), ("kl", "KL on self-generated replay")):
        found.append(
            Claim(
                claim=f"{name} keeps all four tasks",
                paper="≈ 100 % on each" if method == "ntp" else None,
                measure="accuracy on the worst of the four tasks",
                ours=over_seeds([min(end[task] for task in TASKS) for end in final(rows, method)], 0.0, 1.0),
                above=0.97,
            )
        )
    return found


if __name__ == "__main__":
    draw(HERE, figure)
