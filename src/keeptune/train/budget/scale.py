"""After a budget's last step: the change of the weights is scaled until KL is what the budget aims at.

The learning rate ends at 0, so that no λ corrects the last steps, and training sees KL on few rows at a time. KL grows
about as the square of the distance from the base: the weights θ₀ + α(θ − θ₀) meet it with an α near 1. Such weights
lie between those of WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903), or a little beyond: α is at least `LEAST` and at
most `MOST`. Far below 1 a run with another λ learns more; there may be none, where the steps themselves shake KL up.
KL is read on rows that neither training nor the certificate sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

LEAST, MOST = 0.1, 1.1
"""Bounds of α: further up nothing was trained."""
GOAL = 0.8
"""What KL is scaled to, as a share of the budget: room for the errors of these rows and the certificate's."""
_READS = 3
_CLOSE = 0.02
# PEFT draws them at random; their counterparts start at zero, and scaling one factor scales the product.
_RANDOM_FACTORS = ("lora_A", "lora_embedding_A")


def trainable_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the weights to scale, by name, in host memory; empty where weights are sharded.

    Factors of an adapter that start at random are left out, so that a resumed run has the same copies.
    """
    weights = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if any(isinstance(value, DTensor) for value in weights.values()):
        return {}
    chosen = {name: value for name, value in weights.items() if not any(part in name for part in _RANDOM_FACTORS)}
    return {name: value.detach().to("cpu", copy=True) for name, value in chosen.items()}


@torch.no_grad()
def scale_change(model: nn.Module, start: dict[str, Tensor], by: float) -> None:
    """Multiply the distance of the weights from `start` by a factor, in place."""
    weights = dict(model.named_parameters())
    for name, base in start.items():
        weight = weights[name]
        weight.copy_(torch.lerp(base.to(weight.device), weight, by))


def scale_to(change: Callable[[float], object], read: Callable[[], float], budget: float) -> float:
    """Scale the change of the weights so that `read()`, the mean KL in nats per token, is `GOAL` of a budget; give α.

    `change` multiplies the distance of the weights from where they started: `scale_change` of a model.
    """
    at = 1.0

    def kl_at(scale: float) -> float:
        nonlocal at
        change(scale / at)
        at = scale
        return read()

    return find_scale(kl_at, read(), GOAL * budget)[0]


def find_scale(kl_at: Callable[[float], float], kl: float, goal: float) -> tuple[float, float]:
    """The α at which KL is `goal`, up to 2 %, in few readings.

    Args:
        kl_at: KL at an α, nats per token; the last call leaves the weights there.
        kl: KL as trained, at α = 1.

    Returns:
        α and KL there. At a bound of α, KL may miss the goal.
    """
    scale, floor = 1.0, 0.0
    for _ in range(_READS):
        if not math.isfinite(kl) or abs(kl / goal - 1) <= _CLOSE or min(kl, goal) <= floor:
            break
        wanted = min(max(scale * math.sqrt((goal - floor) / (kl - floor)), LEAST), MOST)
        if wanted == scale:
            break
        # KL = floor + curve · α²: arithmetic in 16 bits leaves a floor.
        new = kl_at(wanted)
        curve = (new - kl) / (wanted**2 - scale**2)
        scale, kl, floor = wanted, new, min(max(new - curve * wanted**2, 0.0), 0.9 * new)
    return scale, kl
