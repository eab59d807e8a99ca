"""The frontier as a figure: forgetting against task loss, with the pilot's runs, the budget and the plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from keeptune.plot_style import BLUE, COLOURS, COLUMN, GREY, MARKS, ORANGE, style


def frontier_figure(plan: Mapping[str, Any]) -> Figure:
    """One panel.

    Args:
        plan: the content of `plan.json`.
    """
    with style():
        figure = Figure(figsize=(COLUMN * 1.5, 3.4))
        panel = figure.subplots()
        for place, run in enumerate(plan["pilot"]["runs"]):
            rows = [row for row in run["readings"] if row["N"] > 0]
            panel.plot(
                [row["L_ft"] for row in rows],
                [row["KL"] for row in rows],
                linestyle=":",
                linewidth=0.8,
                color=COLOURS[place % len(COLOURS)],
                marker=MARKS[place % len(MARKS)],
                markersize=2.6,
                label=f"pilot: rank {run['rank']}, λ {run['lambda']:g}, rate {run['learning_rate']:g}",
            )
        if ahead := plan["frontier"]:
            kl = [point["KL"] for point in ahead]
            task = [point["task_loss"][0] for point in ahead]
            panel.plot(task, [ends[0] for ends in kl], color=GREY, label="frontier, by the law (90 %)")
            panel.fill_between(task, [ends[1] for ends in kl], [ends[2] for ends in kl], color=GREY, alpha=0.18)
        chosen, budget = plan["plan"], plan["settings"]["budget"]
        panel.axhline(budget, color=ORANGE, linewidth=0.9, linestyle="--", label=f"budget {budget:g}")
        if chosen and "KL" in chosen:
            (loss, *ends), (kl_at, *kl_ends) = chosen["task_loss"], chosen["KL"]
            panel.errorbar(
                loss,
                kl_at,
                xerr=[[loss - ends[0]], [ends[1] - loss]],
                yerr=[[kl_at - kl_ends[0]], [kl_ends[1] - kl_at]],
                color=BLUE,
                marker="*",
                markersize=8,
                linestyle="none",
                zorder=4,
                label="the plan",
            )
        panel.set(xlabel="task loss (nats per token), better →", ylabel="KL(base‖tuned) (nats per token)")
        # Linear below the budget, so that 0 has a place; logarithmic above.
        panel.set_yscale("symlog", linthresh=budget)
        panel.set_ylim(bottom=0)
        panel.set_title("Forgetting against learning")
        panel.invert_xaxis()
        figure.legend(loc="outside lower center", ncols=2)
    return figure
