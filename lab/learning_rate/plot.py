"""Draw figure.svg and figure.png, and state the claims and the table, from results.csv alone.

python lab/learning_rate/plot.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from curves import by_seed, forgetting, mean_at, paired, runs, told
from drawing import rate_word, whiskers
from grid import Row, draw
from stats import Claim, over_seeds

HERE = Path(__file__).resolve().parent
USUAL = 1e-3
"""Rate of fine-tuning at which rates of pretraining are compared, as in the paper."""


def old_loss(row: Row) -> float:
    """On held-out old text, nats per token."""
    loss: float = row["old_loss"]
    return loss


def rates(rows: list[Row], column: str, method: str = "standard") -> list[float]:
    """The values of a column, from the least on."""
    return sorted({row[column] for row in rows if row["method"] == method})


def figure(rows: list[Row]) -> Any:
    """Left, the old loss by the pretraining rate; right, forgetting by the fine-tuning rate; both at the target."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 — claims need no pictures

    from keeptune.plot_style import COLOURS, GREY, MARKS, PAGE  # noqa: PLC0415

    target, pretrained = rows[0]["target"], rates(rows, "pretrain_rate")
    drawn, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 3.3))
    before = [(rate, base_of(rows, rate)) for rate in pretrained]
    whiskers(left, before, color=GREY, marker="o", label="before fine-tuning")
    for method, name, colour, mark in (
        ("standard", "no replay", COLOURS[1], "s"),
        ("kl_self", "KL on the base's own text", COLOURS[0], "^"),
    ):
        points = [(rate, mean_at(setting(rows, method, rate, USUAL), target, old_loss)[0]) for rate in pretrained]
        whiskers(left, points, color=colour, marker=mark, label=f"{name}, fine-tuned at {rate_word(USUAL)}")
    left.set_xlabel("learning rate of pretraining")
    left.set_ylabel("old loss, nats per token, mean and 95 % interval")
    left.set_title(f"where the new loss is {target:g}")
    for rate, colour, mark in zip(pretrained, COLOURS, MARKS, strict=False):
        for method, line in (("standard", "-"), ("kl_self", "--")):
            points = [
                (own, mean_at(setting(rows, method, rate, own), target)[0])
                for own in rates(rows, "learning_rate", method)
            ]
            label = f"pretrained at {rate_word(rate)}" if method == "standard" else None
            whiskers(right, points, color=colour, marker=mark, linestyle=line, label=label)
    right.plot([], [], color=GREY, label="no replay")
    right.plot([], [], color=GREY, linestyle="--", label="KL on the base's own text")
    right.set_xlabel("learning rate of fine-tuning")
    right.set_ylabel("forgetting: rise of the old loss, nats per token")
    right.set_title(f"where the new loss is {target:g}")
    for axis, marked in ((left, pretrained), (right, rates(rows, "learning_rate"))):
        axis.set_xscale("log")
        axis.set_xticks(marked, [rate_word(rate) for rate in marked])
        axis.minorticks_off()
    right.axhline(0, color=GREY, linewidth=0.8)
    left.margins(y=0.22)
    left.legend(loc="lower left")
    right.set_ylim(top=1.55 * right.get_ylim()[1])
    right.legend(loc="upper left", ncols=2, columnspacing=1.0)
    return drawn


def setting(rows: list[Row], method: str, pretrain_rate: float, rate: float) -> list[list[Row]]:
    """The runs of a method at a rate of pretraining and one of fine-tuning."""
    return runs(rows, method=method, pretrain_rate=pretrain_rate, learning_rate=rate)


def base_of(rows: list[Row], pretrain_rate: float) -> Any:
    """Old loss before fine-tuning, over seeds."""
    bases = {run[0]["seed"]: run[0]["base_old_loss"] for run in runs(rows, pretrain_rate=pretrain_rate)}
    return over_seeds(list(bases.values()))


def table(rows: list[Row]) -> str:
    """Forgetting of each setting at the target loss."""
    pretrained = rates(rows, "pretrain_rate")
    target, names = rows[0]["target"], {"standard": "no replay", "kl_self": "KL, self-replay"}
    lines = [
        f"| forgetting at a new loss of {target:g} | "
        + " | ".join(f"pretrained at {rate_word(rate)}" for rate in pretrained)
        + " |",
        "|---" * (1 + len(pretrained)) + "|",
        "| (old loss before) | " + " | ".join(told(base_of(rows, rate), 2) for rate in pretrained) + " |",
    ]
    for method, name in names.items():
        for own in reversed(rates(rows, "learning_rate", method)):
            values = [told(mean_at(setting(rows, method, rate, own), target)[0]) for rate in pretrained]
            lines.append(f"| {name}, fine-tuned at {rate_word(own)} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's figure of learning rates shows; differences are taken within a seed."""
    target, pretrained, tuned = rows[0]["target"], rates(rows, "pretrain_rate"), rates(rows, "learning_rate")

    def at(method: str, rate: float, own: float, of: Any = forgetting) -> dict[int, float]:
        return by_seed(setting(rows, method, rate, own), target, of)

    def difference(first: dict[int, float], second: dict[int, float]) -> list[float]:
        return paired(first, second, lambda one, other: one - other)

    apart = over_seeds([base_of(rows, pretrained[0]).value - base_of(rows, pretrained[-1]).value]).value
    unequal = f"the authors stop every base at the same loss, ours differ by {apart:.1f} nats"
    low, high, usual = pretrained[0], pretrained[-1], rates(rows, "learning_rate", "kl_self")
    middle = 3e-3
    wanted = [
        (
            "a higher pretraining rate leaves a lower old loss",
            "3.99 → 3.68 from 2e-4 to 1e-2",
            f"old loss, pretrained at {rate_word(low)} minus at {rate_word(high)}, no replay, nats",
            difference(at("standard", low, USUAL, old_loss), at("standard", high, USUAL, old_loss)),
            unequal,
        ),
        (
            "a higher pretraining rate forgets less",
            "3.99 → 3.68 from 2e-4 to 1e-2, bases of equal loss",
            f"forgetting, pretrained at {rate_word(low)} minus at {rate_word(high)}, no replay, nats",
            difference(at("standard", low, USUAL), at("standard", high, USUAL)),
            unequal,
        ),
        (
            "a lower fine-tuning rate forgets less",
            "3.962 → 3.678 from 1e-3 to 1e-4",
            f"forgetting, fine-tuned at {rate_word(USUAL)} minus at {rate_word(tuned[0])}, no replay, nats",
            difference(at("standard", middle, USUAL), at("standard", middle, tuned[0])),
            None,
        ),
        (
            "KL on self-replay keeps more than a tenth of the rate",
            "figure only",
            f"forgetting, at {rate_word(tuned[0])} without replay minus with KL at {rate_word(USUAL)}, nats",
            difference(at("standard", middle, tuned[0]), at("kl_self", middle, USUAL)),
            None,
        ),
        (
            "with KL too, a lower rate forgets less",
            "figure only",
            f"forgetting, fine-tuned at {rate_word(usual[-1])} minus at {rate_word(usual[0])}, with KL, nats",
            difference(at("kl_self", middle, usual[-1]), at("kl_self", middle, usual[0])),
            None,
        ),
    ]
    return [
        Claim(claim=claim, paper=paper, measure=measure, ours=over_seeds(values), above=0.0, untested=untested)
        for claim, paper, measure, values, untested in wanted
        if values
    ]


if __name__ == "__main__":
    draw(HERE, figure)
