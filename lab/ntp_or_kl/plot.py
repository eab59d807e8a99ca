"""Figure, table and claims of next-token loss and KL on replay text, each at its best weight."""

from __future__ import annotations

from typing import Any

import numpy as np

from common.drawing import bars, logarithmic, panels
from common.grid import Row
from common.small.curves import (
    CHOOSING_SEED,
    by_seed,
    differences,
    forgetting,
    mean_at,
    ratios,
    runs,
    share_removed,
    steps_of,
    values,
)
from common.small.curves import whole_seconds as seconds_of
from common.stats import Claim, claim_over_seeds, measured
from common.tables import format_count, format_interval, markdown
from keeptune.plot_style import COLOURS, MARKS

NAMES = {
    "kl_self": "KL, self-replay",
    "ntp_self": "next-token loss, self-replay",
    "kl_real": "KL, old text",
    "ntp_real": "next-token loss, old text",
}
PAPER = {"kl_self": "97 %", "kl_real": "98 %", "ntp_self": "95 %", "ntp_real": "96 %"}


def reported(rows: list[Row]) -> list[Row]:
    """The rows of the seeds that did not choose the weights."""
    return [row for row in rows if row["seed"] != CHOOSING_SEED]


def chosen(rows: list[Row], method: str) -> float | None:
    """The λ with the least forgetting at the target on the choosing seed; None if no λ reaches it."""
    own = [row for row in rows if row["seed"] == CHOOSING_SEED]
    found: dict[float, float] = {}
    for lambda_ in values(own, "lambda_", method=method):
        at = by_seed(runs(own, method=method, lambda_=lambda_), rows[0]["target"])
        if CHOOSING_SEED in at:
            found[lambda_] = at[CHOOSING_SEED]
    return min(found, key=lambda lambda_: found[lambda_]) if found else None


def at_best(rows: list[Row], method: str, of: Any = forgetting) -> dict[int, float]:
    """`of` the reported runs at the target and the chosen λ, by seed."""
    group = runs(reported(rows), method=method, lambda_=chosen(rows, method))
    return by_seed(group, rows[0]["target"], of)


def figure(rows: list[Row]) -> Any:
    """Forgetting at the target against its cost, in steps on the left and in processor seconds on the right."""
    target, seen = rows[0]["target"], reported(rows)
    drawn, axes = panels(3.2, sharey=True)
    for axis, cost in zip(axes, (steps_of, seconds_of), strict=True):
        for (method, name), colour, mark in zip(NAMES.items(), COLOURS, MARKS, strict=False):
            points = []
            for lambda_ in values(seen, "lambda_", method=method):
                group = runs(seen, method=method, lambda_=lambda_)
                forgotten, price = mean_at(group, target), mean_at(group, target, cost)
                if forgotten is not None and price is not None:
                    points.append((price.value, forgotten))
            bars(axis, points, colour)
            look = {"color": colour, "marker": mark, "label": name}
            axis.plot([price for price, _ in points], [interval.value for _, interval in points], **look)
        logarithmic(axis, "x")
        axis.set_xlabel("steps" if cost is steps_of else "processor seconds, with what is replayed")
    axes[0].set_ylabel(f"forgetting at a new loss of {target:g}, nats per token")
    axes[0].legend()
    return drawn


def table(rows: list[Row]) -> str:
    """Each method and λ at the target loss, with its cost."""
    target, lines = rows[0]["target"], []
    for method, name in {"standard": "no replay", **NAMES}.items():
        best = chosen(rows, method)
        for lambda_ in values(rows, "lambda_", method=method):
            group = runs(reported(rows), method=method, lambda_=lambda_)
            mark = " (chosen)" if lambda_ == best and lambda_ else ""
            cost = [
                format_count(mean_at(group, target, steps_of)),
                format_interval(mean_at(group, target, seconds_of), 1),
            ]
            reached = f"{len(by_seed(group, target))} of {len(group)}"
            lines.append([name, f"{lambda_:g}{mark}", format_interval(mean_at(group, target)), *cost, reached])
    head = [
        "replay",
        "λ",
        f"forgetting at a new loss of {target:g}",
        "steps",
        "processor seconds, with what is replayed",
    ]
    return markdown([*head, "seeds that reach it"], lines)


def claims(rows: list[Row]) -> list[Claim]:
    """Shares of the forgetting that are removed, and their cost; compared within a seed."""
    standard = at_best(rows, "standard")
    share = "share of standard fine-tuning's forgetting that is gone at equal task loss"

    def removed(method: str) -> dict[int, float]:
        kept = at_best(rows, method)
        seeds = sorted(kept.keys() & standard.keys())
        return dict(zip(seeds, share_removed(kept, standard), strict=True))

    for_the_same = [
        claim_over_seeds(
            f"for the same {words} KL forgets less than next-token loss, both on own text",
            f"forgetting with KL less with next-token loss, at the {words} of the latter at its λ, nats per token",
            at_the_same_cost(rows, cost),
            below=0.0,
        )
        for words, cost in (("steps", steps_of), ("processor seconds", seconds_of))
    ]
    found = [
        claim_over_seeds(
            f"{name}, nearly eliminates forgetting, λ chosen for it",
            share,
            list(removed(method).values()),
            above=0.9,
            paper=PAPER[method],
        )
        for method, name in NAMES.items()
    ]
    for text, words in (("self", "self-replay"), ("real", "old text")):
        found += [
            claim_over_seeds(
                f"KL removes more of the forgetting than next-token loss on the same text ({words})",
                f"{share}, KL less next-token loss, each at its λ",
                differences(removed(f"kl_{text}"), removed(f"ntp_{text}")),
                above=0.0,
                paper="97 % and 95 %" if text == "self" else "98 % and 96 %",
            ),
            claim_over_seeds(
                f"KL costs no more time than next-token loss, each at its λ ({words})",
                "processor seconds to the target, replay text counted in, KL / next-token loss",
                ratios(at_best(rows, f"kl_{text}", seconds_of), at_best(rows, f"ntp_{text}", seconds_of)),
                below=1.0,
            ),
        ]
    return measured(*found, *for_the_same)


def at_the_same_cost(rows: list[Row], cost: Any) -> list[float]:
    """Forgetting with KL on own text less that with next-token loss at its λ, at the cost of the latter, for each seed.

    KL's is read on the line through its λ in the logarithm of cost; beyond the dearest λ it is that λ's. A seed whose
    next-token loss is cheaper than every λ of KL is left out.
    """
    target, seen, found = rows[0]["target"], reported(rows), []
    spent, forgotten = at_best(rows, "ntp_self", cost), at_best(rows, "ntp_self")
    for seed in sorted(forgotten):
        points = []
        for lambda_ in values(seen, "lambda_", method="kl_self"):
            group = runs(seen, method="kl_self", lambda_=lambda_, seed=seed)
            price, left = by_seed(group, target, cost), by_seed(group, target)
            points += [(float(np.log(price[seed])), left[seed])] if seed in left else []
        points.sort()
        if points and np.log(spent[seed]) >= points[0][0]:
            prices, lefts = zip(*points, strict=True)
            found.append(float(np.interp(np.log(spent[seed]), prices, lefts)) - forgotten[seed])
    return found
