"""The mathematics of not forgetting. Knows torch, and no trainer."""

from keeptune.objective.divergence import forward_kl, jensen_shannon, next_token_ce, reverse_kl
from keeptune.objective.fused import (
    fused_forward_kl,
    fused_jensen_shannon,
    fused_next_token_ce,
    fused_reverse_kl,
)
from keeptune.objective.head import Head

__all__ = [
    "Head",
    "forward_kl",
    "fused_forward_kl",
    "fused_jensen_shannon",
    "fused_next_token_ce",
    "fused_reverse_kl",
    "jensen_shannon",
    "next_token_ce",
    "reverse_kl",
]
