"""Figure, table and claims of how far from the frontier of mixtures fine-tuning ends, in either loss."""

from __future__ import annotations

import numpy as np

from capacity_frontier.plot import end, figure, mixtures, table, tuned
from common.grid import Row
from common.small.curves import values
from common.stats import Claim, claim_over_seeds, measured

__all__ = ["claims", "figure", "table"]


def frontier(rows: list[Row], length: float, seed: int) -> list[Row]:
    """The mixtures of a length of pretraining and a seed that no other is better than in both losses, by new loss."""
    own = [row for group in mixtures(rows, length).values() for row in group if row["seed"] == seed]
    own.sort(key=lambda row: (row["new_loss"], row["old_loss"]))
    best: list[Row] = []
    for row in own:
        if not best or row["old_loss"] < best[-1]["old_loss"]:
            best.append(row)
    return best


def distance(front: list[Row], last: Row, along: str, across: str) -> float | None:
    """How much higher a model's loss `across` is than that of a mixture with its loss `along`, linear between mixtures;
    None beyond them."""
    points = sorted((row[along], row[across]) for row in front)
    places, heights = zip(*points, strict=True)
    if not places[0] <= last[along] <= places[-1]:
        return None
    return float(last[across] - np.interp(last[along], places, heights))


def distances(rows: list[Row], length: float, along: str, across: str) -> list[float]:
    """The mean distance over λ, for each seed that has one."""
    found = []
    for seed in values(rows, "seed"):
        front, groups = frontier(rows, length, seed), tuned(rows, length).values()
        far = [distance(front, end(group, seed), along, across) for group in groups]
        if present := [value for value in far if value is not None]:
            found.append(float(np.mean(present)))
    return found


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's first figure shows; all distances are those of the long pretraining."""
    short, long = values(rows, "tokens_per_parameter")
    shares = mixtures(rows, long)
    least, most = (shares[share] for share in (sorted(shares)[1], sorted(shares)[-1])) if len(shares) > 2 else ([], [])

    def moved(column: str) -> list[float]:
        return [two[column] - one[column] for one, two in zip(least, most, strict=True)]

    trade = [min(rise, -fall) for rise, fall in zip(moved("old_loss"), moved("new_loss"), strict=True)]
    return measured(
        claim_over_seeds(
            "a small model cannot be low in both texts: mixtures trade one loss for the other",
            "from the least to the most new text, the rise of the old loss or the fall of the new, whichever is less",
            trade,
            above=0.3,
            paper="about .8 and 1.0, from 1 % to 99 % Spanish",
        ),
        claim_over_seeds(
            "fine-tuning at several λ ends near the frontier of mixtures in the old loss",
            "old loss above that of a mixture with the same new loss, mean over λ, nats per token",
            distances(rows, long, "new_loss", "old_loss"),
            below=0.1,
            paper="about .03–.08 for λ from 1 to 10",
        ),
        claim_over_seeds(
            "… and in the new loss",
            "new loss above that of a mixture with the same old loss, mean over λ, nats per token",
            distances(rows, long, "old_loss", "new_loss"),
            below=0.15,
            paper="about .05–.15",
        ),
        claim_over_seeds(
            f"for one new loss the model of {long:g} tokens a parameter forgets more than that of {short:g}",
            "forgetting where λ = 1 ends from the long base, less that from the short base there, nats per token",
            parted(rows, short, long),
            above=0.05,
            paper=".76 and .06, at a Spanish loss of 2.75",
        ),
    )


def parted(rows: list[Row], short: float, long: float) -> list[float]:
    """Forgetting at the end of λ = 1 from the long base less that of the short one at the same new loss, by seed."""
    long_runs, short_runs = (
        {run[0]["seed"]: run for run in tuned(rows, length).get(1.0, [])} for length in (long, short)
    )
    found = []
    for seed, run in long_runs.items():
        other, last = short_runs.get(seed), run[-1]
        if other is None:
            continue
        path = sorted((row["new_loss"], row["old_loss"] - row["base_old_loss"]) for row in other)
        losses, forgotten = zip(*path, strict=True)
        if losses[0] <= last["new_loss"] <= losses[-1]:
            at = float(np.interp(last["new_loss"], losses, forgotten))
            found.append(last["old_loss"] - last["base_old_loss"] - at)
    return found
