"""Runs by their rates of pretraining and of fine-tuning, as two experiments read them."""

from __future__ import annotations

from collections.abc import Mapping

from common.drawing import format_rate
from common.grid import Row
from common.small.curves import Run, mean_at, runs, values
from common.stats import Interval, over_seeds
from common.tables import format_interval, markdown


def old_loss(row: Row) -> float:
    """Loss on held-out old text, nats per token."""
    return float(row["old_loss"])


def setting(rows: list[Row], method: str, pretrain_rate: float, rate: float) -> list[Run]:
    """The runs of a method at a rate of pretraining and one of fine-tuning."""
    return runs(rows, method=method, pretrain_rate=pretrain_rate, learning_rate=rate)


def base_of(rows: list[Row], pretrain_rate: float) -> Interval:
    """Old loss before fine-tuning, over seeds."""
    bases = {run[0]["seed"]: run[0]["base_old_loss"] for run in runs(rows, pretrain_rate=pretrain_rate)}
    return over_seeds(list(bases.values()))


def table_of(rows: list[Row], methods: Mapping[str, str]) -> str:
    """Forgetting at the target loss: a column for each rate of pretraining, a line for each method and rate.

    Args:
        methods: the methods in order, and their names for people.
    """
    target, pretrained = rows[0]["target"], values(rows, "pretrain_rate")
    head = [f"forgetting at a new loss of {target:g}", *(f"pretrained at {format_rate(rate)}" for rate in pretrained)]
    lines = [["(old loss before)", *(format_interval(base_of(rows, rate), 2) for rate in pretrained)]]
    for method, name in methods.items():
        for own in reversed(values(rows, "learning_rate", method=method)):
            groups = [setting(rows, method, rate, own) for rate in pretrained]
            cells = [format_interval(mean_at(group, target)) if group else "not run" for group in groups]
            lines.append([f"{name}, fine-tuned at {format_rate(own)}", *cells])
    return markdown(head, lines)
