"""Figure, table and claims of the learning rate of pretraining, on bases of equal loss."""

from __future__ import annotations

from typing import Any

from common.drawing import format_rate, log_places, panels, whiskers
from common.grid import Row
from common.small.curves import by_seed, differences, forgetting, mean_at, values
from common.small.rates import base_of, old_loss, setting, table_of
from common.stats import Claim, claim_over_seeds, measured
from keeptune.plot_style import COLOURS, GREY, MARKS

METHODS = {"standard": "no replay", "kl_self": "KL on the base's own text"}


PAPER = {
    1e-3: "about 4.32 → 3.75 from 2e-4 to 1e-2 (3.99 → 3.68 fine-tuned at 1e-6)",
    3e-4: "about 4.12 → 3.70 from 2e-4 to 1e-2, fine-tuned at 3.2e-4",
}
"""The paper's old losses after fine-tuning, by its rate; read off its figure."""


def figure(rows: list[Row]) -> Any:
    """Old loss by the pretraining rate; a panel for each rate of fine-tuning."""
    target, pretrained = rows[0]["target"], values(rows, "pretrain_rate")
    tuned = sorted(values(rows, "learning_rate"), reverse=True)
    drawn, axes = panels(3.3)
    for axis, own in zip(axes, tuned, strict=True):
        bases = [(rate, base_of(rows, rate)) for rate in pretrained]
        whiskers(axis, bases, color=GREY, marker="o", label="before fine-tuning")
        for (method, name), colour, mark in zip(METHODS.items(), (COLOURS[1], COLOURS[0]), MARKS, strict=False):
            points = [(rate, mean_at(setting(rows, method, rate, own), target, old_loss)) for rate in pretrained]
            whiskers(axis, points, color=colour, marker=mark, label=name)
        axis.set_title(f"fine-tuned at {format_rate(own)}, where the new loss is {target:g}")
        axis.set_xlabel("learning rate of pretraining")
        axis.set_ylabel("old loss, nats per token, mean and 95 % interval")
        log_places(axis, pretrained, [format_rate(rate) for rate in pretrained])
        axis.legend(loc="upper right")
    return drawn


def table(rows: list[Row]) -> str:
    """Forgetting of each setting at the target loss."""
    return table_of(rows, METHODS)


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's figure of pretraining rates shows; differences are taken within a seed."""
    target, pretrained = rows[0]["target"], values(rows, "pretrain_rate")
    low, high = pretrained[0], pretrained[-1]

    def at(method: str, rate: float, own: float, of: Any = forgetting) -> dict[int, float]:
        return by_seed(setting(rows, method, rate, own), target, of)

    found: list[Claim | None] = []
    for own in sorted(values(rows, "learning_rate"), reverse=True):
        tuned = f"fine-tuned at {format_rate(own)}"
        found += [
            claim_over_seeds(
                f"of bases of equal loss, one pretrained at a higher rate forgets less ({tuned})",
                f"old loss, pretrained at {format_rate(low)} minus at {format_rate(high)}, no replay, nats per token",
                differences(at("standard", low, own, old_loss), at("standard", high, own, old_loss)),
                above=0.0,
                paper=PAPER.get(own, "figure only"),
            ),
            claim_over_seeds(
                f"KL on the worst base keeps more than the best pretraining rate does ({tuned})",
                f"forgetting, pretrained at {format_rate(high)} minus at {format_rate(low)} with KL, nats",
                differences(at("standard", high, own), at("kl_self", low, own)),
                above=0.0,
                paper="3.36 with KL on the worst base, 3.75 without on the best, fine-tuned at 1e-3",
            ),
        ]
    return measured(*found)
