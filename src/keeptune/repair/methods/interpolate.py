"""One coefficient for all weights: WiSE-FT (Wortsman et al. 2022, arXiv 2109.01903); of an adapter, its strength."""

from __future__ import annotations

import torch
from torch import Tensor


class Interpolate:
    """θ₀ + s·(θ − θ₀)."""

    name, title, ends_at_tuned, linear = "interpolate", "interpolation (WiSE-FT)", True, True

    def weight(self, name: str, base: Tensor, tuned: Tensor, strength: float) -> Tensor:
        """The point on the line; its ends are exact."""
        return torch.lerp(base, tuned, strength)
