"""Draw figure.svg and figure.png, and state the claims and the table, from results.csv alone.

python lab/pretraining_length/plot.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from curves import Best, best_at, runs, told
from grid import Row, draw
from stats import Claim, Interval, over_seeds

HERE = Path(__file__).resolve().parent
PAPER = {10: -0.005, 31.6: 0.003, 100: 0.076, 316: 0.115, 1000: 0.147, 3162: 0.168, 10000: 0.181}
"""Tokens a parameter and forgetting at the best λ, of the paper's figure."""


def lambdas(rows: list[Row]) -> list[float]:
    """Those of the KL, from the least on."""
    return sorted({row["lambda_"] for row in rows} - {0.0})


def lengths(rows: list[Row]) -> list[float]:
    """Tokens a parameter, from the shortest pretraining on."""
    return sorted({row["tokens_per_parameter"] for row in rows})


def at(rows: list[Row], length: float, among: list[float]) -> Best:
    """What models of a length forget at the target under the best of these λ."""
    return best_at(rows, rows[0]["target"], among, tokens_per_parameter=length)


def figure(rows: list[Row]) -> Any:
    """Left, forgetting at the target by length, with and without KL; right, the KL alone, and the paper's."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 — claims need no pictures

    from keeptune.plot_style import BLUE, GREEN, GREY, ORANGE, PAGE, SKY  # noqa: PLC0415

    drawn, (both, kept) = plt.subplots(1, 2, figsize=(PAGE, 3.0))
    draw_line(both, rows, [0.0], ORANGE, "s", "standard fine-tuning")
    draw_line(both, rows, lambdas(rows), BLUE, "o", "KL, self-replay, best λ")
    for lambda_, colour, mark in zip(lambdas(rows), (SKY, GREEN), ("^", "v"), strict=False):
        draw_line(kept, rows, [lambda_], colour, mark, f"KL, λ = {lambda_:g}")
    kept.plot(
        list(PAPER), list(PAPER.values()), "D--", color=GREY, linewidth=0.9, label="paper, 6 M parameters, best λ"
    )
    for axis in (both, kept):
        axis.axhline(0, color=GREY, linewidth=0.8)
        axis.set_xscale("log")
        axis.set_xlabel("length of pretraining, tokens per parameter")
    both.legend()
    kept.legend(loc="lower right")
    both.set_xticks(lengths(rows), [f"{length:g}" for length in lengths(rows)])
    both.minorticks_off()
    both.set_xlim(lengths(rows)[0] / 1.3, lengths(rows)[-1] * 1.3)
    both.set_ylabel("forgetting: rise of the old loss,\nnats per token, 95 % intervals")
    both.set_title(f"where the new loss is {rows[0]['target']:g}")
    kept.set_title("with KL alone, beside the paper's")
    return drawn


def draw_line(axis: Any, rows: list[Row], among: list[float], colour: str, mark: str, name: str) -> None:
    """Forgetting at the target by length, under the best of these λ, with intervals."""
    found = [(length, at(rows, length, among).interval) for length in lengths(rows)]
    reached = [(length, interval) for length, interval in found if interval is not None]
    axis.plot(
        [length for length, _ in reached],
        [interval.value for _, interval in reached],
        mark + "-",
        color=colour,
        label=name if reached else f"{name}: target not reached",
    )
    if not reached:
        return
    for length, (_, low, high, _) in reached:
        if low is not None and high is not None:
            axis.plot([length, length], [low, high], color=colour, linewidth=1.2)
    for length in (length for length, interval in found if interval is None):
        axis.annotate(
            "not reached",
            (length, 0.5),
            xycoords=("data", "axes fraction"),
            rotation=90,
            ha="center",
            va="center",
            fontsize=6.5,
            color=colour,
        )


def table(rows: list[Row]) -> str:
    """Each length at the target loss."""
    each = lambdas(rows)
    names = " | ".join(f"KL, λ = {lambda_:g}" for lambda_ in each)
    lines = [
        f"| tokens a parameter | old loss before | standard | {names} |",
        "|---|---|---|" + "---|" * len(each),
    ]
    for length in lengths(rows):
        before = over_seeds([run[0]["base_old_loss"] for run in runs(rows, tokens_per_parameter=length, lambda_=0.0)])
        cells = [told(at(rows, length, [lambda_]).interval) for lambda_ in (0.0, *each)]
        lines.append(f"| {length:g} | {told(before)} | {' | '.join(cells)} |")
    return "\n".join([f"Forgetting at a new loss of {rows[0]['target']:g}, nats per token:", "", *lines])


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's axis of pretraining's length shows, over the lengths at which KL learns the target."""
    found = [(length, at(rows, length, lambdas(rows)).by_seed) for length in lengths(rows)]
    reached = [(length, values) for length, values in found if values]
    if len(reached) < 2:
        return []
    (first, short), (last, long) = reached[0], reached[-1]
    seeds = sorted(short.keys() & long.keys())
    doublings = np.log2([length for length, _ in reached])
    slopes = [float(np.polyfit(doublings, [values[seed] for _, values in reached], 1)[0]) for seed in seeds]

    def claim(text: str, paper: str, measure: str, ours: Interval, **bound: float) -> Claim:
        return Claim(claim=text, paper=paper, measure=f"{measure}, with KL, nats per token", ours=ours, **bound)

    return [
        claim(
            "longer pretraining forgets more",
            ".112 more at 316 than at 31.6 tokens a parameter",
            f"forgetting at {last:g} less that at {first:g} tokens a parameter",
            over_seeds([long[seed] - short[seed] for seed in seeds]),
            above=0.05,
        ),
        claim(
            "forgetting grows with every doubling of pretraining",
            ".034 a doubling from 31.6 to 316",
            "growth of forgetting a doubling",
            over_seeds(slopes),
            above=0.01,
        ),
        claim(
            "a model that was pretrained shortly forgets nothing",
            "-.005 at 10 and .003 at 31.6 tokens a parameter",
            f"forgetting at {first:g} tokens a parameter",
            over_seeds(list(short.values())),
            below=0.02,
        ),
    ]


if __name__ == "__main__":
    draw(HERE, figure)
