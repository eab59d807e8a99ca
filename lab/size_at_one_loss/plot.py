"""Figure, table and claims of forgetting by the size of the model, on bases of equal loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from common.grid import Row
from common.small.curves import best_at, differences, kl_lambdas, read_where_chosen, runs, values
from common.stats import Claim, claim_over_seeds, measured, over_seeds
from common.tables import format_interval, markdown
from model_size import plot

HARD = 3.0
"""The λ with which the smallest model just learns the target, on the choosing seed."""


def chosen(rows: list[Row]) -> list[Row]:
    """The reported rows, to be read at the loss that the smallest model ends at with λ = 3."""
    return read_where_chosen(rows, width=values(rows, "width")[0], lambda_=HARD)


def figure(rows: list[Row]) -> Any:
    """Forgetting along the learning, and at the target by size."""
    return plot.figure(chosen(rows))


def table(rows: list[Row]) -> str:
    """Each size at the target loss, with every λ that reaches it."""
    own, lines = chosen(rows), []
    for width in values(own, "width"):
        base = over_seeds([run[0]["base_old_loss"] for run in runs(own, width=width, lambda_=0.0)])
        found = [best_at(own, own[0]["target"], [lambda_], width=width) for lambda_ in values(own, "lambda_")]
        about = [plot.thousands(plot.parameters(own, width)), format_interval(base, 2)]
        lines.append([*about, *(format_interval(best.interval) for best in found)])
    head = ["parameters", "old loss before", *(f"λ = {lambda_:g}" for lambda_ in values(own, "lambda_"))]
    return f"Forgetting at a new loss of {own[0]['target']:g}, nats per token:\n\n{markdown(head, lines)}"


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's size axis shows, with one set of λ at every size."""
    own = chosen(rows)
    widths = values(own, "width")

    def at(width: int, *lambdas: float) -> dict[int, float]:
        return best_at(own, own[0]["target"], lambdas, width=width).by_seed

    best = {width: at(width, *kl_lambdas(own)) for width in widths}
    reached = {width: forgotten for width, forgotten in best.items() if forgotten}
    alone = {width: forgotten for width in widths if (forgotten := at(width, 0.0))}
    return measured(
        claim_over_seeds(
            "with KL, forgetting falls with size, on bases of equal loss and with one set of λ",
            "change of forgetting for e times the parameters, best λ of each size, nats per token",
            slopes(own, reached),
            below=0.0,
            paper=".264, .045, .018, .0066, .006 at 6, 12, 21, 32, 46 M",
        ),
        claim_over_seeds(
            "the smallest model forgets more than twice as much as the largest, with KL",
            "the largest model's forgetting less half of the smallest's, nats per token",
            differences(reached[max(reached)], {seed: 0.5 * value for seed, value in reached[min(reached)].items()})
            if len(reached) > 1
            else [],
            below=0.0,
            paper=".006 and .264",
        ),
        claim_over_seeds(
            "without KL too, forgetting falls with size, on bases of equal loss",
            "change of forgetting for e times the parameters, no replay, nats per token",
            slopes(own, alone),
            below=0.0,
        ),
    )


def slopes(rows: list[Row], by_width: dict[int, dict[int, float]]) -> list[float]:
    """The slope of forgetting in the logarithm of parameters, for each seed that has every width."""
    if len(by_width) < 2:
        return []
    sizes = np.log([plot.parameters(rows, width) for width in by_width])
    seeds = set.intersection(*(set(forgotten) for forgotten in by_width.values()))
    return [float(np.polyfit(sizes, [own[seed] for own in by_width.values()], 1)[0]) for seed in sorted(seeds)]
