"""The base writes its own text: ancestral samples, temperature 1, no top-k, no top-p, nothing stops a row.

Source: Marek et al. 2026 (arXiv 2605.26097). Shapes: B rows, T drawn tokens, V vocabulary, K blocks of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from keeptune.replay.writer import writing_copy

_BLOCK = 256


class Sampler(Protocol):
    """Writes rows of text from a base model's own distribution."""

    def sample(self, rows: int, length: int, start: int, seed: int) -> Tensor:
        """`rows` rows [rows, 1 + length] of int64 ids: the start token, then `length` drawn tokens."""
        ...


class TorchSampler:
    """The decode loop in torch, for any Hugging Face causal model on its own device.

    Args:
        model: the base; a copy of it writes, so it may change afterwards.
        dtype: to sample in; default the model's own.
        rows: how many rows will be drawn together, for the layout of the copy's weights.
        on_token: called with the number of rows after each step, for progress.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        dtype: torch.dtype | None = None,
        rows: int = 64,
        on_token: Callable[[int], None] | None = None,
    ) -> None:
        self.model = writing_copy(model, dtype or next(model.parameters()).dtype, rows)
        self.on_token = on_token

    @torch.inference_mode()
    def sample(self, rows: int, length: int, start: int, seed: int) -> Tensor:
        """See `Sampler.sample`. The same seed gives the same rows on the same machine and versions."""
        device = next(self.model.parameters()).device
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.full((rows, 1 + length), start, dtype=torch.int64, device=device)
        cache = _preallocated_cache(self.model.config, 1 + length)
        for position in range(length):
            logits_BV = self.model(
                input_ids=tokens[:, position : position + 1], past_key_values=cache, use_cache=True
            ).logits[:, -1]
            uniform_B = torch.rand(rows, generator=generator, dtype=torch.float64).to(device)
            tokens[:, position + 1] = draw(logits_BV, uniform_B)
            if self.on_token is not None:
                self.on_token(rows)
        return tokens.cpu()


def draw(logits_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """One exact draw a row from softmax(logits) by inverting its cumulative distribution; ids [B].

    `uniform_B` is fp64 in [0, 1). The vocabulary is summed in blocks first: one pass over V, then two short searches,
    where `torch.multinomial` needs several passes and a random number for each word.
    """
    rows, vocabulary = logits_BV.shape
    weight_BV = logits_BV.float()
    weight_BV = (weight_BV - weight_BV.amax(dim=-1, keepdim=True)).exp_()
    if vocabulary % _BLOCK:
        weight_BV = nn.functional.pad(weight_BV, (0, _BLOCK - vocabulary % _BLOCK))
    weight_BKC = weight_BV.view(rows, -1, _BLOCK)
    mass_BK = weight_BKC.sum(dim=-1).double()
    cumulative_BK = mass_BK.cumsum(dim=-1)
    target_B1 = uniform_B[:, None] * cumulative_BK[:, -1:]
    block_B1 = torch.searchsorted(cumulative_BK, target_B1, right=True).clamp_(max=cumulative_BK.shape[1] - 1)
    rest_B1 = target_B1 - (cumulative_BK.gather(1, block_B1) - mass_BK.gather(1, block_B1))
    chosen_BC = weight_BKC[torch.arange(rows, device=logits_BV.device), block_B1[:, 0]].double()
    inner_B1 = torch.searchsorted(chosen_BC.cumsum(dim=-1), rest_B1, right=True)
    # Rounding can push the search past the last word of positive weight; that word is then the answer.
    last_B1 = (chosen_BC > 0).long().mul_(torch.arange(_BLOCK, device=logits_BV.device)).amax(dim=-1, keepdim=True)
    return (block_B1 * _BLOCK + torch.minimum(inner_B1, last_B1))[:, 0]


class _PreallocatedLayer(DynamicLayer):
    """Keys and values written in place into room for `length` positions, instead of copied at every step."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.seen = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        rows, heads, _, width = key_states.shape
        self.dtype, self.device = key_states.dtype, key_states.device
        self.key_room = key_states.new_empty(rows, heads, self.length, width)
        self.value_room = value_states.new_empty(rows, heads, self.length, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.seen + key_states.shape[-2]
        self.key_room[:, :, self.seen : end] = key_states
        self.value_room[:, :, self.seen : end] = value_states
        self.seen = end
        self.keys, self.values = self.key_room[:, :, :end], self.value_room[:, :, :end]
        return self.keys, self.values


def _preallocated_cache(config: Any, length: int) -> DynamicCache:
    cache = DynamicCache(config=config)
    # Only plain layers grow by concatenation; sliding-window and state-space layers keep their own rule.
    cache.layers = [_PreallocatedLayer(length) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
