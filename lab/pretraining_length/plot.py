"""Figure, table and claims of forgetting by the length of pretraining."""

from __future__ import annotations

from typing import Any

import numpy as np

from common.drawing import absent, bars, log_places, panels
from common.grid import Row
from common.small.curves import Best, best_at, kl_lambdas, runs, values
from common.stats import Claim, Interval, over_seeds
from common.tables import format_interval, markdown
from keeptune.plot_style import BLUE, GREEN, GREY, ORANGE, SKY

PAPER = {10: -0.005, 31.6: 0.003, 100: 0.076, 316: 0.115, 1000: 0.147, 3162: 0.168, 10000: 0.181}
"""Tokens per parameter and forgetting at the best λ, of the paper's figure."""


def lengths(rows: list[Row]) -> list[float]:
    """Lengths of pretraining, in tokens per parameter."""
    return values(rows, "tokens_per_parameter")


def at(rows: list[Row], length: float, among: list[float]) -> Best:
    """What models of a length forget at the target with the best of these λ."""
    return best_at(rows, rows[0]["target"], among, tokens_per_parameter=length)


def figure(rows: list[Row]) -> Any:
    """Left, forgetting at the target by length, with and without KL; right, the KL alone, and the paper's."""
    drawn, (both, kept) = panels(3.0)
    draw_line(both, rows, [0.0], ORANGE, "s", "standard fine-tuning")
    draw_line(both, rows, kl_lambdas(rows), BLUE, "o", "KL, self-replay, best λ")
    for lambda_, colour, mark in zip(kl_lambdas(rows), (SKY, GREEN), ("^", "v"), strict=False):
        draw_line(kept, rows, [lambda_], colour, mark, f"KL, λ = {lambda_:g}")
    paper = list(PAPER), list(PAPER.values())
    kept.plot(*paper, "D--", color=GREY, linewidth=0.9, label="paper, 6 M parameters, best λ")
    for axis in (both, kept):
        axis.axhline(0, color=GREY, linewidth=0.8)
        axis.set_xscale("log")
        axis.set_xlabel("length of pretraining, tokens per parameter")
    both.legend()
    kept.legend(loc="lower right")
    log_places(both, lengths(rows))
    both.set_xlim(lengths(rows)[0] / 1.3, lengths(rows)[-1] * 1.3)
    both.set_ylabel("forgetting: rise of the old loss,\nnats per token, 95 % intervals")
    both.set_title(f"where the new loss is {rows[0]['target']:g}")
    kept.set_title("with KL alone, beside the paper's")
    return drawn


def draw_line(axis: Any, rows: list[Row], among: list[float], colour: str, mark: str, name: str) -> None:
    """Forgetting at the target by length with the best of these λ, with intervals."""
    points = [(length, at(rows, length, among).interval) for length in lengths(rows)]
    reached = [(length, interval) for length, interval in points if interval is not None]
    path = [length for length, _ in reached], [interval.value for _, interval in reached]
    axis.plot(*path, mark + "-", color=colour, label=name if reached else f"{name}: target not reached")
    bars(axis, reached, colour)
    for length, interval in points if reached else []:
        if interval is None:
            absent(axis, length, "not reached", 0.5, rotation=90, va="center", color=colour)


def table(rows: list[Row]) -> str:
    """Each length at the target loss."""
    each, lines = kl_lambdas(rows), []
    for length in lengths(rows):
        before = over_seeds([run[0]["base_old_loss"] for run in runs(rows, tokens_per_parameter=length, lambda_=0.0)])
        cells = [format_interval(at(rows, length, [lambda_]).interval) for lambda_ in (0.0, *each)]
        lines.append([f"{length:g}", format_interval(before), *cells])
    head = ["tokens a parameter", "old loss before", "standard", *(f"KL, λ = {lambda_:g}" for lambda_ in each)]
    return f"Forgetting at a new loss of {rows[0]['target']:g}, nats per token:\n\n{markdown(head, lines)}"


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's axis of the length of pretraining shows, over the lengths at which KL reaches the target."""
    found = {length: at(rows, length, kl_lambdas(rows)).by_seed for length in lengths(rows)}
    reached = {length: forgotten for length, forgotten in found.items() if forgotten}
    if len(reached) < 2:
        return []
    (first, short), *_, (last, long) = reached.items()
    seeds = sorted(short.keys() & long.keys())
    doublings = np.log2(list(reached))
    slopes = [float(np.polyfit(doublings, [own[seed] for own in reached.values()], 1)[0]) for seed in seeds]

    def claim(text: str, paper: str, measure: str, ours: Interval, **bound: Any) -> Claim:
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
