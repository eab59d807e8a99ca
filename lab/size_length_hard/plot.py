"""Figure, table and claims of forgetting by size and length of pretraining, on a task that is hard for the smallest."""

from __future__ import annotations

from typing import Any

from common.grid import Row
from common.small.curves import differences, read_where_chosen, values
from common.stats import Claim, claim_over_seeds, measured
from size_length_grid import plot
from size_length_grid.plot import Place, at, kept_share, places

HARD = 1.0
"""The λ with which the smallest, shortest pretrained model just learns the target, on the choosing seed."""


def chosen(rows: list[Row]) -> list[Row]:
    """The reported rows, to be read at the loss that the smallest, shortest pretrained model ends at with λ = 1."""
    width, length = places(rows)[0]
    return read_where_chosen(rows, width=width, tokens_per_parameter=length, lambda_=HARD)


def figure(rows: list[Row]) -> Any:
    """Heat maps of forgetting and of the pretraining that is kept."""
    return plot.figure(chosen(rows))


def table(rows: list[Row]) -> str:
    """Every size and length at the target loss."""
    return plot.table(chosen(rows))


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's grids show without KL, and what they show of length with one."""
    own = chosen(rows)
    corner, *others = places(own)
    small, *_, large = values(own, "width")
    short, *_, long = values(own, "tokens_per_parameter")
    alone = {place: at(own, place, [0.0]).by_seed for place in places(own)}
    with_kl = {place: at(own, place, [HARD]).by_seed for place in places(own)}
    seeds = set.intersection(*(set(by_seed) for by_seed in alone.values()))
    worst = {seed: max(alone[place][seed] for place in others) for seed in seeds}

    def kept(place: Place) -> dict[int, float]:
        return {seed: kept_share(own, place, seed, forgotten) for seed, forgotten in alone[place].items()}

    return measured(
        claim_over_seeds(
            "without KL the smallest, shortest pretrained model forgets most, on a task that is hard for it",
            "its forgetting less that of the worst other, nats per token",
            differences(alone[corner], worst),
            above=0.0,
            paper=".37, the most of the grid; about .05 at 32 M",
        ),
        claim_over_seeds(
            "without KL a larger model keeps a larger share of its pretraining",
            f"share of pretraining kept, {large} less {small} wide, {long:g} tokens a parameter",
            differences(kept((large, long)), kept((small, long))),
            above=0.0,
            paper="about .5 or less up to 9 M, .7 at 32 M",
        ),
        claim_over_seeds(
            "with KL longer pretraining forgets more, in a larger model too",
            f"forgetting at {long:g} less that at {short:g} tokens a parameter, {large} wide, nats per token",
            differences(with_kl[large, long], with_kl[large, short]),
            above=0.02,
            paper=".112 more at 316 than at 31.6 tokens a parameter, of 6 M parameters",
        ),
    )
