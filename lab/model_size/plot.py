"""Draw figure.svg and figure.png, and state the claims and the table, from results.csv alone.

python lab/model_size/plot.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from curves import Best, best_at, forgetting, runs, told
from grid import Row, draw
from stats import Claim, over_seeds

HERE = Path(__file__).resolve().parent
PAPER = {6e6: 0.264, 12e6: 0.045, 21e6: 0.018, 32e6: 0.0066, 46e6: 0.006}
"""Parameters and forgetting at the best λ, of the paper's figure."""


def lambdas(rows: list[Row]) -> list[float]:
    """Those of the KL, from the least on."""
    return sorted({row["lambda_"] for row in rows} - {0.0})


def widths(rows: list[Row]) -> list[int]:
    """From the narrowest on."""
    return sorted({row["width"] for row in rows})


def best(rows: list[Row], width: int) -> Best:
    """What a width forgets at the target under the λ that suits it."""
    return best_at(rows, rows[0]["target"], lambdas(rows), width=width)


def parameters(rows: list[Row], width: int) -> int:
    """Of the models of a width."""
    found: int = next(row["parameters"] for row in rows if row["width"] == width)
    return found


def figure(rows: list[Row]) -> Any:
    """Left, forgetting along the learning under the best λ; right, forgetting at the target by size."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 — claims need no pictures

    drawn, (curves, points) = plt.subplots(1, 2, figsize=(plot_style().PAGE, 3.1), width_ratios=(1.1, 1))
    draw_curves(curves, rows)
    draw_points(points, rows)
    return drawn


def plot_style() -> Any:
    """The look; claims need no pictures."""
    from keeptune import plot_style as look  # noqa: PLC0415

    return look


def draw_curves(axis: Any, rows: list[Row]) -> None:
    """A line a seed: new loss and forgetting along the training under the best λ, or the most where none is."""
    look = plot_style()
    for width, colour, mark in zip(widths(rows), look.COLOURS, look.MARKS, strict=False):
        lambda_ = best(rows, width).lambda_ or lambdas(rows)[0]
        for number, run in enumerate(runs(rows, width=width, lambda_=lambda_)):
            axis.plot(
                [row["new_loss"] for row in run],
                [forgetting(row) for row in run],
                color=colour,
                marker=mark,
                markersize=2.4,
                linewidth=0.9,
                label=f"{thousands(parameters(rows, width))} parameters, λ = {lambda_:g}" if number == 0 else None,
            )
    axis.axvline(rows[0]["target"], color=look.GREY, linewidth=0.8, linestyle="--")
    axis.invert_xaxis()
    axis.set_xlabel("new loss, nats per token (learning goes right)")
    axis.set_ylabel("forgetting: rise of the old loss,\nnats per token")
    axis.set_title("along the training, a line a seed")
    axis.legend(loc="upper left")


def draw_points(axis: Any, rows: list[Row]) -> None:
    """Forgetting at the target by size, standard and under the best λ, beside the paper's."""
    look = plot_style()
    smallest = parameters(rows, widths(rows)[0])
    plain = [(width, best_at(rows, rows[0]["target"], [0.0], width=width)) for width in widths(rows)]
    kept = [(width, best(rows, width)) for width in widths(rows)]
    shown: list[Any] = []
    for found, name, colour, mark in (
        (plain, "standard fine-tuning", look.ORANGE, "s"),
        (kept, "KL, self-replay, best λ", look.BLUE, "o"),
    ):
        reached = [(parameters(rows, width) / smallest, one.interval) for width, one in found if one.interval]
        if not reached:
            continue
        sizes = [size for size, _ in reached]
        shown += [interval for _, interval in reached]
        axis.plot(sizes, [interval.value for _, interval in reached], mark + "-", color=colour, label=name)
        for size, (_, low, high, _) in reached:
            if low is not None and high is not None:
                axis.plot([size, size], [low, high], color=colour, linewidth=1.2)
    axis.plot(
        [size / min(PAPER) for size in PAPER],
        PAPER.values(),
        "D--",
        color=look.GREY,
        linewidth=0.9,
        label="paper, multiples of 6 M",
    )
    missed = [width for width, one in kept if one.interval is None]
    for width in missed:
        axis.annotate(
            "not\nreached",
            (parameters(rows, width) / smallest, 0.02),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=6.5,
            color=look.BLUE,
        )
    axis.set_xscale("log")
    # Noise may bring forgetting below 0.
    axis.set_yscale("symlog", linthresh=0.005)
    axis.set_ylim(bottom=min([0.0, *(interval.value if interval.low is None else interval.low for interval in shown)]))
    axis.set_xticks(*ticks([parameters(rows, width) / smallest for width in widths(rows)]))
    axis.minorticks_off()
    axis.set_xlabel(f"parameters, multiples of {thousands(smallest)}")
    axis.set_ylabel("forgetting, nats per token, 95 % intervals")
    axis.set_title(f"where the new loss is {rows[0]['target']:g}")
    axis.legend()


def ticks(values: list[float]) -> tuple[list[float], list[str]]:
    """Places and names."""
    return values, [f"{value:.2g}" for value in values]


def thousands(count: int) -> str:
    """`24.7 k`, or `6.3 M`."""
    return f"{count / 1e3:.3g} k" if count < 1e6 else f"{count / 1e6:.3g} M"


def table(rows: list[Row]) -> str:
    """Each size at the target loss."""
    target = rows[0]["target"]
    lines = [
        "| parameters | tokens a parameter | old loss before | forgetting, standard | forgetting, KL | best λ |",
        "|---|---|---|---|---|---|",
    ]
    for width in widths(rows):
        group = runs(rows, width=width, lambda_=0.0)
        before = over_seeds([run[0]["base_old_loss"] for run in group])
        kept = best(rows, width)
        lines.append(
            f"| {thousands(parameters(rows, width))} | {group[0][0]['tokens_per_parameter']:g} | {told(before)} "
            f"| {told(best_at(rows, target, [0.0], width=width).interval)} | {told(kept.interval)} "
            f"| {'–' if kept.lambda_ is None else f'{kept.lambda_:g}'} |"
        )
    return "\n".join([f"At a new loss of {target:g}:", "", *lines])


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's size axis shows, between the smallest and the largest model that learn the target."""
    reached = [(width, best(rows, width).by_seed) for width in widths(rows)]
    reached = [(width, values) for width, values in reached if values]
    if len(reached) < 2:
        return []
    (_, small), (_, large) = reached[0], reached[-1]
    seeds = sorted(small.keys() & large.keys())
    sizes = np.log([parameters(rows, width) for width, _ in reached])
    slopes = [float(np.polyfit(sizes, [values[seed] for _, values in reached], 1)[0]) for seed in seeds]
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


if __name__ == "__main__":
    draw(HERE, figure)
