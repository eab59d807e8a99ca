"""Decoding: a copy of the base in the sampling dtype, one position of all rows at a time, with the base's own logits.

`ModuleDecoder` runs the model's own modules, so it serves every Hugging Face causal model. `LlamaDecoder` is faster and
is used only if it gives the model's own logits.

Shapes: B rows, P positions, V vocabulary.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from keeptune.models.adapters import causal_model, remove_idle_adapter
from keeptune.replay.decoding.linear import pack_linears, packing_works
from keeptune.replay.decoding.llama import LlamaDecoder, is_llama

_COMPARED_ROWS, _COMPARED_POSITIONS = 4, 8
# Rounding to bfloat16 moves the logits of the models tried by 0.01 of their norm, however they are computed.
_TOLERANCE, _TOLERANCE_16_BIT = 1e-3, 0.05


class Decoder(Protocol):
    """Continues rows one position at a time, with a cache of keys and values."""

    def begin(self, rows: int, length: int) -> None:
        """Start `rows` new rows of at most `length` positions."""

    def step(self, tokens_B1: Tensor) -> Tensor:
        """Read one more token of each row; returns the logits [B, V] of the next token."""


def make_decoder(model: nn.Module, dtype: torch.dtype, rows: int) -> Decoder:
    """The fastest decoder with the logits of the causal model inside `model`, for `rows` rows at a time.

    The weights are copied to `dtype` once, because autocast would cast them at every step. On a CPU with bfloat16 they
    are also packed once (see `FusedLinear`). A model on an accelerator that already has the dtype is not copied.
    """
    causal = causal_model(model)
    own = next(causal.parameters())
    if own.device.type == "cpu" or own.dtype != dtype:
        causal = copy.deepcopy(causal).to(dtype).eval()
        # A forward patched onto the instance (as trainers do) belongs to the original and would run the original.
        causal.__dict__.pop("forward", None)
        remove_idle_adapter(causal, _compared_tokens(causal))
    packs = own.device.type == "cpu" and dtype == torch.bfloat16 and packing_works()
    if is_llama(causal):
        decoder = LlamaDecoder(causal, rows if packs else None)
        if _same_logits(decoder, causal):
            return decoder
    if packs:
        pack_linears(causal, rows)
    return ModuleDecoder(causal)


class ModuleDecoder:
    """The model's own modules, with keys and values written in place."""

    def __init__(self, causal: Any) -> None:
        self.causal = causal

    def begin(self, rows: int, length: int) -> None:
        self.cache = DynamicCache(config=self.causal.config)
        # Only full-attention layers grow by concatenation; sliding-window and state-space layers keep their own cache.
        self.cache.layers = [
            _PreallocatedLayer(length) if type(layer) is DynamicLayer else layer for layer in self.cache.layers
        ]

    def step(self, tokens_B1: Tensor) -> Tensor:
        logits_B1V: Tensor = self.causal(input_ids=tokens_B1, past_key_values=self.cache, use_cache=True).logits
        return logits_B1V[:, -1]


@torch.inference_mode()
def _same_logits(decoder: Decoder, causal: Any) -> bool:
    """Whether `decoder` gives the logits of `causal` up to rounding, on rows of random tokens.

    The median position decides: at the first positions of a row the 16-bit logits of some models are far off.
    """
    tokens_BP = _compared_tokens(causal)
    own_BPV = causal(input_ids=tokens_BP, use_cache=False).logits.float()
    decoder.begin(*tokens_BP.shape)
    stepped_BPV = torch.stack([decoder.step(tokens_B1) for tokens_B1 in tokens_BP.split(1, dim=1)], dim=1).float()
    off_BP = (stepped_BPV - own_BPV).norm(dim=-1) / own_BPV.norm(dim=-1)
    return bool(off_BP.median() <= (_TOLERANCE_16_BIT if causal.dtype.itemsize == 2 else _TOLERANCE))


def _compared_tokens(causal: Any) -> Tensor:
    vocabulary = causal.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (_COMPARED_ROWS, _COMPARED_POSITIONS), generator=generator).to(causal.device)


class _PreallocatedLayer(DynamicLayer):
    """Keys and values written in place into tensors of `length` positions, instead of copied at every step."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.filled = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        rows, heads, _, width = key_states.shape
        self.dtype, self.device = key_states.dtype, key_states.device
        self.all_keys = key_states.new_empty(rows, heads, self.length, width)
        self.all_values = value_states.new_empty(rows, heads, self.length, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.filled + key_states.shape[-2]
        self.all_keys[:, :, self.filled : end] = key_states
        self.all_values[:, :, self.filled : end] = value_states
        self.filled = end
        self.keys, self.values = self.all_keys[:, :, :end], self.all_values[:, :, :end]
        return self.keys, self.values
