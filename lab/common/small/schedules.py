"""Learning rates of fine-tuning along a run."""

from __future__ import annotations

import math
from collections.abc import Callable

from common.grid import Cell

FALLS: dict[str, Callable[[float], float]] = {
    "constant": lambda share: 1.0,
    "linear": lambda share: 1.0 - share,
    "cosine": lambda share: 0.5 * (1.0 + math.cos(math.pi * share)),
}
"""The learning rate after warm-up, over its peak, by the share of the steps that are done."""


def rate_at(step: int, cell: Cell) -> float:
    """The learning rate of a step, counted from 0, over its peak."""
    warmup = cell["warmup"]
    done = max(step - warmup, 0) / max(cell["steps"] - warmup, 1)
    return min((step + 1) / warmup, FALLS[cell.get("schedule", "constant")](done))
