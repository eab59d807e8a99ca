"""The mathematics of not forgetting. Knows torch, but no trainer."""

from keeptune.objective.divergence import (
    DIVERGENCES,
    Divergence,
    forward_kl,
    jensen_shannon,
    next_token_ce,
    register_divergence,
    reverse_kl,
)
from keeptune.objective.fused import fused_divergence, fused_next_token_ce
from keeptune.objective.head import Head
from keeptune.objective.targets import HiddenTarget, Target, TopKTarget, top_k

__all__ = [
    "DIVERGENCES", "Divergence", "Head", "HiddenTarget", "Target", "TopKTarget", "forward_kl", "fused_divergence",
    "fused_next_token_ce", "jensen_shannon", "next_token_ce", "register_divergence", "reverse_kl", "top_k",
]  # fmt: skip
