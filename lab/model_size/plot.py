"""Figure, table and claims of forgetting by the size of the model."""

from __future__ import annotations

from typing import Any

import numpy as np

from common.drawing import absent, bars, log_places, panels
from common.grid import Row
from common.small.curves import Best, best_at, forgetting, kl_lambdas, runs, values
from common.stats import Claim, over_seeds
from common.tables import format_interval, markdown
from keeptune.plot_style import BLUE, COLOURS, GREY, MARKS, ORANGE

PAPER = {6e6: 0.264, 12e6: 0.045, 21e6: 0.018, 32e6: 0.0066, 46e6: 0.006}
"""Parameters and forgetting at the best λ, of the paper's figure."""


def best(rows: list[Row], width: int, *lambdas: float) -> Best:
    """What a width forgets at the target with the best λ, of these or of those of the KL."""
    return best_at(rows, rows[0]["target"], lambdas or kl_lambdas(rows), width=width)


def parameters(rows: list[Row], width: int) -> int:
    """Parameters of the models of a width."""
    return next(int(row["parameters"]) for row in rows if row["width"] == width)


def figure(rows: list[Row]) -> Any:
    """Left, forgetting along the learning with the best λ; right, forgetting at the target by size."""
    drawn, (curves, points) = panels(3.1, width_ratios=(1.1, 1))
    draw_curves(curves, rows)
    draw_points(points, rows)
    return drawn


def draw_curves(axis: Any, rows: list[Row]) -> None:
    """A line per seed: new loss and forgetting along the training with the best λ, or the least if there is none."""
    for width, colour, mark in zip(values(rows, "width"), COLOURS, MARKS, strict=False):
        lambda_ = best(rows, width).lambda_ or kl_lambdas(rows)[0]
        label: str | None = f"{thousands(parameters(rows, width))} parameters, λ = {lambda_:g}"
        for run in runs(rows, width=width, lambda_=lambda_):
            path = [row["new_loss"] for row in run], [forgetting(row) for row in run]
            axis.plot(*path, color=colour, marker=mark, markersize=2.4, linewidth=0.9, label=label)
            label = None
    axis.axvline(rows[0]["target"], color=GREY, linewidth=0.8, linestyle="--")
    axis.invert_xaxis()
    axis.set_xlabel("new loss, nats per token (learning goes right)")
    axis.set_ylabel("forgetting: rise of the old loss,\nnats per token")
    axis.set_title("along the training, a line a seed")
    axis.legend(loc="upper left")


def draw_points(axis: Any, rows: list[Row]) -> None:
    """Forgetting at the target by size, standard and with the best λ, beside the paper's."""
    widths = values(rows, "width")
    smallest = parameters(rows, widths[0])
    sizes = {width: parameters(rows, width) / smallest for width in widths}
    lowest = 0.0
    for lambdas, name, colour, mark in (
        ((0.0,), "standard fine-tuning", ORANGE, "s"),
        ((), "KL, self-replay, best λ", BLUE, "o"),
    ):
        at = [(size, best(rows, width, *lambdas).interval) for width, size in sizes.items()]
        reached = [(size, interval) for size, interval in at if interval]
        if not reached:
            continue
        path = [size for size, _ in reached], [interval.value for _, interval in reached]
        axis.plot(*path, mark + "-", color=colour, label=name)
        bars(axis, reached, colour)
        lowest = min(lowest, *(i.value if i.low is None else i.low for _, i in reached))
    multiples = [size / min(PAPER) for size in PAPER]
    axis.plot(multiples, PAPER.values(), "D--", color=GREY, linewidth=0.9, label="paper, multiples of 6 M")
    for width, size in sizes.items():
        if best(rows, width).interval is None:
            absent(axis, size, "not\nreached", 0.02, va="bottom", color=BLUE)
    axis.set_xscale("log")
    # Noise may bring forgetting below 0.
    axis.set_yscale("symlog", linthresh=0.005)
    axis.set_ylim(bottom=lowest)
    log_places(axis, list(sizes.values()), [f"{size:.2g}" for size in sizes.values()])
    axis.set_xlabel(f"parameters, multiples of {thousands(smallest)}")
    axis.set_ylabel("forgetting, nats per token, 95 % intervals")
    axis.set_title(f"where the new loss is {rows[0]['target']:g}")
    axis.legend()


def thousands(count: int) -> str:
    """`24.7 k`, or `6.3 M`."""
    return f"{count / 1e3:.3g} k" if count < 1e6 else f"{count / 1e6:.3g} M"


def table(rows: list[Row]) -> str:
    """Each size at the target loss."""
    lines = []
    for width in values(rows, "width"):
        group = runs(rows, width=width, lambda_=0.0)
        kept = best(rows, width)
        forgotten = [format_interval(best(rows, width, 0.0).interval), format_interval(kept.interval)]
        about = [thousands(parameters(rows, width)), f"{group[0][0]['tokens_per_parameter']:g}"]
        before = format_interval(over_seeds([run[0]["base_old_loss"] for run in group]))
        lines.append([*about, before, *forgotten, "–" if kept.lambda_ is None else f"{kept.lambda_:g}"])
    head = ["parameters", "tokens a parameter", "old loss before", "forgetting, standard", "forgetting, KL", "best λ"]
    return f"At a new loss of {rows[0]['target']:g}:\n\n{markdown(head, lines)}"


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's size axis shows, between the smallest and the largest model that reach the target."""
    at = {width: best(rows, width).by_seed for width in values(rows, "width")}
    reached = {width: forgotten for width, forgotten in at.items() if forgotten}
    if len(reached) < 2:
        return []
    small, *_, large = reached.values()
    seeds = sorted(small.keys() & large.keys())
    sizes = np.log([parameters(rows, width) for width in reached])
    slopes = [float(np.polyfit(sizes, [own[seed] for own in reached.values()], 1)[0]) for seed in seeds]
    return [
        Claim(
            claim="the smallest model forgets more than five times as much as the largest, with KL",
            paper=".264 and .006: 2 %",
            measure="the largest model's forgetting as a share of the smallest's",
            ours=over_seeds([large[seed] / small[seed] for seed in seeds]),
            below=0.2,
        ),
        Claim(
            claim="forgetting falls with size, with KL and at equal task loss",
            paper="falls at every step of five sizes",
            measure="change of forgetting for e times the parameters, nats per token",
            ours=over_seeds(slopes),
            below=0.0,
        ),
    ]
