"""Figure, table and claims of LoRA and OSFT beside full fine-tuning, with embeddings and head frozen and trained."""

from __future__ import annotations

from typing import Any

from common.drawing import format_rate, log_places, panels, whiskers
from common.grid import Row
from common.small.curves import CHOOSING_SEED, by_seed, differences, mean_at, ratios, runs, values
from common.stats import Claim, claim_over_seeds, measured
from common.tables import format_interval, markdown
from keeptune.plot_style import COLOURS, MARKS

NAMES = {"standard": "all weights", "lora": "LoRA, rank 16", "osft": "OSFT, half the rank"}
EMBEDDINGS = ("frozen", "trained")


def reported(rows: list[Row]) -> list[Row]:
    """The rows of the seeds that did not choose the rates."""
    return [row for row in rows if row["seed"] != CHOOSING_SEED]


FLAT = 0.03
"""Nats per token: where the next rate forgets within this, lower rates are taken to forget no less."""


def by_rate(rows: list[Row], method: str, embeddings: str) -> dict[float, float]:
    """Forgetting at the target on the choosing seed, by the rates that reach it, the lowest first."""
    target, own = rows[0]["target"], [row for row in rows if row["seed"] == CHOOSING_SEED]
    found: dict[float, float] = {}
    for rate in values(own, "learning_rate", method=method):
        at = by_seed(runs(own, method=method, embeddings=embeddings, learning_rate=rate), target)
        if CHOOSING_SEED in at:
            found[rate] = at[CHOOSING_SEED]
    return found


def chosen_rate(rows: list[Row], method: str, embeddings: str) -> float | None:
    """The rate with the least forgetting at the target on the choosing seed; None if no rate reaches it."""
    found = by_rate(rows, method, embeddings)
    return min(found, key=lambda rate: found[rate]) if found else None


def at_the_edge(rows: list[Row], method: str, embeddings: str) -> bool:
    """Whether the chosen rate has no lower one that reaches the target, and forgetting still falls there."""
    found = by_rate(rows, method, embeddings)
    lowest, *others = found
    return chosen_rate(rows, method, embeddings) == lowest and (not others or found[others[0]] - found[lowest] > FLAT)


def forgotten(rows: list[Row], method: str, embeddings: str) -> dict[int, float]:
    """Forgetting at the target and the chosen rate, by reported seed."""
    rate = chosen_rate(rows, method, embeddings)
    group = runs(reported(rows), method=method, embeddings=embeddings, learning_rate=rate)
    return by_seed(group, rows[0]["target"])


def figure(rows: list[Row]) -> Any:
    """Forgetting at the target by the rate of fine-tuning, embeddings and head frozen on the left, trained right."""
    target = rows[0]["target"]
    drawn, axes = panels(3.1, sharey=True)
    for axis, embeddings in zip(axes, EMBEDDINGS, strict=True):
        for (method, name), colour, mark in zip(NAMES.items(), COLOURS, MARKS, strict=False):
            points = [
                (rate, mean_at(runs(reported(rows), method=method, embeddings=embeddings, learning_rate=rate), target))
                for rate in values(rows, "learning_rate", method=method)
            ]
            whiskers(axis, points, color=colour, marker=mark, label=name)
        axis.set_title(f"embeddings and head {embeddings}")
        axis.set_xlabel("learning rate")
        rates = values(rows, "learning_rate")
        log_places(axis, rates, [format_rate(rate) for rate in rates])
    axes[0].set_ylabel(f"forgetting at a new loss of {target:g}, nats per token")
    axes[0].legend()
    return drawn


def table(rows: list[Row]) -> str:
    """Each method at the target loss, by rate."""
    target, lines = rows[0]["target"], []
    for method, name in NAMES.items():
        for embeddings in EMBEDDINGS:
            chosen = chosen_rate(rows, method, embeddings)
            for rate in values(rows, "learning_rate", method=method):
                group = runs(reported(rows), method=method, embeddings=embeddings, learning_rate=rate)
                mark = " (chosen)" if rate == chosen else ""
                reached = f"{len(by_seed(group, target))} of {len(group)}"
                line = [name, embeddings, format_rate(rate) + mark, format_interval(mean_at(group, target)), reached]
                lines.append(line)
    head = ["tuned", "embeddings and head", "rate", f"forgetting at a new loss of {target:g}", "seeds that reach it"]
    return markdown(head, lines)


def claims(rows: list[Row]) -> list[Claim]:
    """LoRA against full fine-tuning, each at its chosen rate; differences and ratios are taken within a seed."""
    full, full_frozen = forgotten(rows, "standard", "trained"), forgotten(rows, "standard", "frozen")
    lora, lora_trained = forgotten(rows, "lora", "frozen"), forgotten(rows, "lora", "trained")
    osft_trained = forgotten(rows, "osft", "trained")
    more = "forgetting at equal task loss, nats per token"

    def edge(*pairs: tuple[str, str]) -> str | None:
        at_edge = [
            f"{NAMES[pair[0]]} ({pair[1]})" for pair in pairs if by_rate(rows, *pair) and at_the_edge(rows, *pair)
        ]
        return f"the chosen rate is at the edge of those that get there: {', '.join(at_edge)}" if at_edge else None

    found = [
        claim_over_seeds(
            "LoRA forgets more than full fine-tuning at equal task loss, each at its best rate",
            f"{more}, LoRA (embeddings and head frozen) less full fine-tuning",
            differences(lora, full),
            above=0.0,
            untested=edge(("lora", "frozen"), ("standard", "trained")),
            paper=".140 forgotten, standard .113, both at the rate 1e-5",
        ),
        claim_over_seeds(
            "freezing embeddings and head alone makes full fine-tuning forget more",
            f"{more}, frozen less trained",
            differences(full_frozen, full),
            above=0.0,
            untested=edge(("standard", "frozen"), ("standard", "trained")),
        ),
        claim_over_seeds(
            "with embeddings and head trained LoRA forgets at most a tenth more than full fine-tuning",
            "forgetting at equal task loss, LoRA with both trained / full fine-tuning",
            ratios(lora_trained, full),
            below=1.1,
            untested=edge(("lora", "trained"), ("standard", "trained")),
        ),
        claim_over_seeds(
            "with embeddings and head trained OSFT forgets no less than full fine-tuning",
            "forgetting at equal task loss, OSFT with both trained / full fine-tuning",
            ratios(osft_trained, full),
            above=0.9,
            untested=edge(("osft", "trained"), ("standard", "trained")),
        ),
    ]
    return measured(*found)
