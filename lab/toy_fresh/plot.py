"""Figure and claims of four tasks in sequence with fresh rows and fresh replay."""

from __future__ import annotations

from typing import Any

from common.drawing import panels
from common.grid import Row
from common.small.curves import values
from common.stats import Claim, claim_over_seeds, measured, over_seeds
from common.tables import format_interval, markdown
from keeptune.plot_style import COLOURS
from toy_continual.plot import METHODS, curve, final
from toy_continual.tasks import ABOVE_999, TASKS

READ = (*TASKS, ABOVE_999)


def figure(rows: list[Row]) -> Any:
    """Accuracy on each task along the training, a panel per method; a line is a seed."""
    methods = values(rows, "method")
    drawn, axes = panels(2.6, len(methods), squeeze=False, sharey=True)
    for axis, method in zip(axes[0], methods, strict=True):
        for colour, task in zip(COLOURS, READ, strict=False):
            label: str | None = task
            for seed in values(rows, "seed"):
                axis.plot(*zip(*curve(rows, method, seed, task), strict=True), color=colour, linewidth=0.8, label=label)
                label = None
        axis.set_title(METHODS[method])
        axis.set_xlabel("step")
        axis.set_ylim(-0.03, 1.03)
    axes[0][0].set_ylabel("held-out rows answered right")
    axes[0][0].legend()
    return drawn


def table(rows: list[Row]) -> str:
    """Accuracy on each task at the end."""
    lines = []
    for method in values(rows, "method"):
        ends = zip(*final(rows, method, *READ), strict=True)
        lines.append([METHODS[method], *(format_interval(over_seeds(list(seeds), 0.0, 1.0)) for seeds in ends)])
    return markdown(["accuracy at the end on", *READ], lines)


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's figure shows, one number per seed."""

    def worst(method: str) -> list[float]:
        if method not in values(rows, "method"):
            return []
        return [min(accuracies) for accuracies in final(rows, method, *TASKS)]

    kept = "accuracy on the worst of the four tasks, at the end"
    lost = (
        [max(accuracies) for accuracies in final(rows, "none", ABOVE_999, "reversal", "sort")] if worst("none") else []
    )
    return measured(
        claim_over_seeds(
            "with fresh rows too, later tasks ruin the earlier ones",
            "accuracy on the best of addition with sums above 999, reversal and sort",
            lost,
            below=0.3,
            paper="add 21 %, reversal 0 %, sort 1 % at the end, on all questions",
        ),
        claim_over_seeds(
            "with fresh rows, next-token loss on self-generated replay keeps all four tasks",
            kept,
            worst("ntp"),
            above=0.97,
            paper="≈ 100 % on each",
        ),
        claim_over_seeds(
            "with fresh rows, KL on self-generated replay keeps all four tasks", kept, worst("kl"), above=0.97
        ),
    )
