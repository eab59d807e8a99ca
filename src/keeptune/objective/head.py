"""From final hidden states to logits, exactly as the model's own head computes them.

Shapes: N tokens, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

# Words of the vocabulary whose weights, cast, and gradients fit a processor's cache together.
CACHED_WORDS = 8192


@dataclass(frozen=True, kw_only=True)
class Head:
    """The output layer of a causal model: `softcap·tanh(scale·(h Wᵀ + b) / softcap)`."""

    weight_VD: Tensor
    """The output embedding; it may be tied to the input embedding."""
    bias_V: Tensor | None = None
    """Added to the logits, if the model has a bias."""
    scale: float = 1.0
    """Factor on the logits: Cohere's `logit_scale`, one over Granite's `logits_scaling`."""
    softcap: float | None = None
    """Gemma's `final_logit_softcapping`."""

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """The logits [N, V]: fp32 (fp64 for fp64 hidden states), the matrix product in the current compute dtype."""
        return self.finish(self.product(hidden_ND))

    def product(self, hidden_ND: Tensor) -> Tensor:
        """The matrix product alone [N, V], in the current compute dtype (see `compute_dtype`)."""
        dtype, weight_VD = compute_dtype(hidden_ND), self.weight_VD
        hidden_ND = hidden_ND.to(dtype)
        if weight_VD.dtype == dtype or weight_VD.device.type != "cpu" or torch.is_grad_enabled():
            return hidden_ND @ weight_VD.to(dtype).T
        # The same bits as above, without a copy of the whole weight in memory.
        product_NV = hidden_ND.new_empty(*hidden_ND.shape[:-1], len(weight_VD))
        for words in word_slices(len(weight_VD)):
            product_NV[..., words] = hidden_ND @ weight_VD[words].to(dtype).T
        return product_NV

    def finish(self, product_NV: Tensor) -> Tensor:
        """Everything after the matrix product: bias, scale, soft cap, in fp32 or wider."""
        wide = torch.promote_types(product_NV.dtype, torch.float32)
        logits_NV = product_NV.to(wide)
        if self.bias_V is not None:
            logits_NV = logits_NV + self.bias_V.to(wide)
        if self.scale != 1.0:
            logits_NV = logits_NV * self.scale
        if self.softcap is not None:
            logits_NV = self.softcap * torch.tanh(logits_NV / self.softcap)
        return logits_NV

    def pull_back(self, grad_logits_NV: Tensor, logits_NV: Tensor) -> Tensor:
        """Gradient at the finished logits → gradient at the matrix product. May overwrite `grad_logits_NV`."""
        if self.softcap is not None:
            grad_logits_NV.mul_(1.0 - (logits_NV / self.softcap).square_())
        if self.scale != 1.0:
            grad_logits_NV.mul_(self.scale)
        return grad_logits_NV

    def detached(self, dtype: torch.dtype | None = None) -> Head:
        """A frozen copy that training steps cannot change, with the weight in `dtype`: the teacher's head."""
        return Head(
            weight_VD=self.weight_VD.detach().to(dtype, copy=True),
            bias_V=None if self.bias_V is None else self.bias_V.detach().clone(),
            scale=self.scale,
            softcap=self.softcap,
        )


def word_slices(vocabulary: int) -> Iterator[slice]:
    """The vocabulary in parts of `CACHED_WORDS`; the last has the rest too: few words multiply by other kernels."""
    ends = [*range(CACHED_WORDS, vocabulary - CACHED_WORDS + 1, CACHED_WORDS), vocabulary]
    return (slice(start, end) for start, end in pairwise([0, *ends]))


def compute_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype in which a matrix product of `hidden` runs now: autocast's if autocast is on, else its own."""
    device = hidden.device.type
    if hidden.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return hidden.dtype
