"""A part of the change's entries: the largest, as TIES trims (Yadav et al. 2023, arXiv 2306.01708), or a random part,
scaled up, as DARE keeps (Yu et al. 2024, arXiv 2311.03099).

TIES also lets several task vectors elect a sign; of one there is nothing to elect.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

DENSITY = 0.5
"""The share of entries that DARE keeps; smaller models bear less dropping than the nine tenths of the paper."""


class Trim:
    """Of each tensor the share `strength` of its entries with the largest change; the rest are the base's."""

    name, title, ends_at_tuned, linear = "trim", "the largest changes only (TIES)", True, False

    def weight(self, name: str, base: Tensor, tuned: Tensor, strength: float) -> Tensor:
        """Ties at the limit are broken by place, so that the share is exact."""
        kept = round(strength * base.numel())
        if kept == base.numel():
            return tuned
        size = (tuned - base).abs().flatten()
        chosen = torch.zeros(base.numel(), dtype=torch.bool)
        if kept:
            chosen[size.topk(kept, sorted=False).indices] = True
        return torch.where(chosen.view(base.shape), tuned, base)


class Dare:
    """A random half of the entries with twice their change, then interpolated: θ₀ + s·m·(θ − θ₀)/density."""

    name, title, ends_at_tuned, linear = "dare", "a random half, doubled (DARE)", False, False

    def weight(self, name: str, base: Tensor, tuned: Tensor, strength: float) -> Tensor:
        """The mask depends on the tensor's name only."""
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])
        mask = torch.rand(base.shape, generator=torch.Generator().manual_seed(seed)) < DENSITY
        return torch.where(mask, torch.lerp(base, tuned, strength / DENSITY), base)
