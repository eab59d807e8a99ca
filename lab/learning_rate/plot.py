"""Figure, table and claims of the learning rates of pretraining and of fine-tuning."""

from __future__ import annotations

from typing import Any

from common.drawing import format_rate, log_places, panels, whiskers
from common.grid import Row
from common.small.curves import by_seed, differences, forgetting, mean_at, values
from common.small.rates import base_of, old_loss, setting, table_of
from common.stats import Claim, claim_over_seeds, measured
from keeptune.plot_style import COLOURS, GREY, MARKS

USUAL = 1e-3
"""Rate of fine-tuning at which rates of pretraining are compared, as in the paper."""
COMPARED = 3e-3
"""Rate of pretraining at which rates of fine-tuning are compared."""


def figure(rows: list[Row]) -> Any:
    """Left, the old loss by the pretraining rate; right, forgetting by the fine-tuning rate; both at the target."""
    target, pretrained = rows[0]["target"], values(rows, "pretrain_rate")
    drawn, (left, right) = panels(3.3)
    whiskers(
        left, [(rate, base_of(rows, rate)) for rate in pretrained], color=GREY, marker="o", label="before fine-tuning"
    )
    for method, name, colour, mark in (
        ("standard", "no replay", COLOURS[1], "s"),
        ("kl_self", "KL on the base's own text", COLOURS[0], "^"),
    ):
        points = [(rate, mean_at(setting(rows, method, rate, USUAL), target, old_loss)) for rate in pretrained]
        whiskers(left, points, color=colour, marker=mark, label=f"{name}, fine-tuned at {format_rate(USUAL)}")
    left.set_xlabel("learning rate of pretraining")
    left.set_ylabel("old loss, nats per token, mean and 95 % interval")
    for rate, colour, mark in zip(pretrained, COLOURS, MARKS, strict=False):
        for method, line in (("standard", "-"), ("kl_self", "--")):
            tuned = values(rows, "learning_rate", method=method)
            points = [(own, mean_at(setting(rows, method, rate, own), target)) for own in tuned]
            label = f"pretrained at {format_rate(rate)}" if method == "standard" else None
            whiskers(right, points, color=colour, marker=mark, linestyle=line, label=label)
    right.plot([], [], color=GREY, label="no replay")
    right.plot([], [], color=GREY, linestyle="--", label="KL on the base's own text")
    right.set_xlabel("learning rate of fine-tuning")
    right.set_ylabel("forgetting: rise of the old loss, nats per token")
    for axis, marked in ((left, pretrained), (right, values(rows, "learning_rate", method="standard"))):
        axis.set_title(f"where the new loss is {target:g}")
        log_places(axis, marked, [format_rate(rate) for rate in marked])
    right.axhline(0, color=GREY, linewidth=0.8)
    left.margins(y=0.22)
    left.legend(loc="lower left")
    right.set_ylim(top=1.55 * right.get_ylim()[1])
    right.legend(loc="upper left", ncols=2, columnspacing=1.0)
    return drawn


def table(rows: list[Row]) -> str:
    """Forgetting of each setting at the target loss."""
    return table_of(rows, {"standard": "no replay", "kl_self": "KL, self-replay"})


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's figure of learning rates shows; differences are taken within a seed."""
    target = rows[0]["target"]
    slowest = values(rows, "learning_rate", method="standard")[0]
    with_kl = values(rows, "learning_rate", method="kl_self")
    slow, fast = with_kl[0], with_kl[-1]

    def at(method: str, rate: float, own: float, of: Any = forgetting) -> dict[int, float]:
        return by_seed(setting(rows, method, rate, own), target, of)

    def claim(text: str, measure: str, first: dict[int, float], second: dict[int, float], **given: Any) -> Claim | None:
        return claim_over_seeds(text, measure, differences(first, second), above=0.0, **given)

    return measured(
        claim(
            "a lower fine-tuning rate forgets less",
            f"forgetting, fine-tuned at {format_rate(USUAL)} minus at {format_rate(slowest)}, no replay, nats",
            at("standard", COMPARED, USUAL),
            at("standard", COMPARED, slowest),
            paper="3.962 → 3.678 from 1e-3 to 1e-4, target 3.3",
        ),
        claim(
            "KL on self-replay keeps more than a tenth of the rate",
            f"forgetting, at {format_rate(slowest)} without replay minus with KL at {format_rate(USUAL)}, nats",
            at("standard", COMPARED, slowest),
            at("kl_self", COMPARED, USUAL),
            paper="about 3.84 and 3.31, pretrained at 1e-3",
        ),
        claim(
            "with KL too, a lower rate forgets less",
            f"forgetting, fine-tuned at {format_rate(fast)} minus at {format_rate(slow)}, with KL, nats",
            at("kl_self", COMPARED, fast),
            at("kl_self", COMPARED, slow),
            paper="about 3.31 at 1e-3, 3.27 at 1e-6, pretrained at 1e-3",
        ),
    )
