"""The mathematics of not forgetting. Knows torch, and no trainer."""

from keeptune.objective.divergence import forward_kl, next_token_ce
from keeptune.objective.fused import fused_forward_kl, fused_next_token_ce
from keeptune.objective.head import Head

__all__ = ["Head", "forward_kl", "fused_forward_kl", "fused_next_token_ce", "next_token_ce"]
