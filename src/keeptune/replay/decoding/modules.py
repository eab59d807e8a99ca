"""Decoders that run a model's own modules, from the fastest to the one that is right for every causal model.

Shapes: B rows, P positions, V vocabulary.
"""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.generation.utils import ALL_CACHE_NAMES

from keeptune.models.adapters import evaluating
from keeptune.models.modeling import autocast, head_of, hidden_states

_PREFIX_ROWS = 16


class ModuleDecoder:
    """The model's own modules, with keys and values written in place; under autocast where `dtype` is not its own."""

    def __init__(self, causal: Any, dtype: torch.dtype | None = None) -> None:
        self.causal, self.dtype = causal, dtype or causal.dtype

    def begin(self, rows: int, length: int) -> None:
        self.cache = DynamicCache(config=self.causal.config)
        # Only full-attention layers grow by concatenation; sliding-window and state-space layers keep their own cache.
        self.cache.layers = [
            _PreallocatedLayer(length) if type(layer) is DynamicLayer else layer for layer in self.cache.layers
        ]

    def step(self, tokens_B1: Tensor) -> Tensor:
        with _cast(self.causal, self.dtype):
            logits_B1V: Tensor = self.causal(input_ids=tokens_B1, past_key_values=self.cache, use_cache=True).logits
        return logits_B1V[:, -1]


class OwnCacheDecoder:
    """The model's own modules and own cache, passed from step to step as `generate` does.

    Serves state-space and linear-attention models, whose cache has another name or class, and models that count
    positions only if they are given.
    """

    def __init__(self, causal: Any, dtype: torch.dtype | None = None) -> None:
        self.causal, self.dtype = causal, dtype or causal.dtype
        self.counts = "position_ids" in inspect.signature(type(causal).forward).parameters

    def begin(self, rows: int, length: int) -> None:
        device = self.causal.device
        self.tokens_BP = torch.empty(rows, 0, dtype=torch.int64, device=device)
        self.given: dict[str, object] = {
            "use_cache": True,
            "attention_mask": torch.ones(rows, 1, dtype=torch.int64, device=device),
        }
        if self.counts:
            self.given["position_ids"] = torch.zeros(1, 1, dtype=torch.int64, device=device)

    def step(self, tokens_B1: Tensor) -> Tensor:
        first = not self.tokens_BP.shape[1]
        self.tokens_BP = torch.cat([self.tokens_BP, tokens_B1], dim=1)
        inputs = self.causal.prepare_inputs_for_generation(
            self.tokens_BP, next_sequence_length=1, is_first_iteration=first, **self.given
        )
        with _cast(self.causal, self.dtype):
            outputs = self.causal(**inputs, return_dict=True)
        self.given = self.causal._update_model_kwargs_for_generation(outputs, self.given)
        logits_B1V: Tensor = outputs.logits
        return logits_B1V[:, -1]


class PrefixDecoder:
    """No cache and no copy: every step reads the rows from their start, as training does. Exact, and far slower."""

    def __init__(self, causal: Any, dtype: torch.dtype) -> None:
        self.causal, self.dtype = causal, dtype

    def begin(self, rows: int, length: int) -> None:
        self.tokens_BP = torch.empty(rows, 0, dtype=torch.int64, device=self.causal.device)

    def step(self, tokens_B1: Tensor) -> Tensor:
        self.tokens_BP = torch.cat([self.tokens_BP, tokens_B1], dim=1)
        head, chunks = head_of(self.causal), self.tokens_BP.split(_PREFIX_ROWS)
        with evaluating(self.causal), autocast(self.causal.device, self.dtype):
            return torch.cat([head.logits(hidden_states(self.causal, chunk_BP)[:, -1]) for chunk_BP in chunks])


def _cast(causal: Any, dtype: torch.dtype) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if dtype == causal.dtype else autocast(causal.device, dtype)


@torch.no_grad()
def own_cache_bytes(causal: Any, positions: int) -> int:
    """Bytes of the model's own cache of one row after so many tokens; 0 if it cannot be stepped with one."""
    decoder = OwnCacheDecoder(causal)
    decoder.begin(1, positions)
    try:
        for _ in range(positions):
            decoder.step(torch.zeros(1, 1, dtype=torch.int64, device=causal.device))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return 0  # such a model is sampled without a cache
    found: dict[int, int] = {}
    _tensors([value for name, value in decoder.given.items() if name in ALL_CACHE_NAMES], found)
    return sum(found.values())


def _tensors(value: Any, found: dict[int, int]) -> None:
    """Collect the bytes of all tensors inside containers and cache objects, by the tensor's identity."""
    if isinstance(value, Tensor):
        found[id(value)] = value.numel() * value.itemsize
    elif isinstance(value, dict):
        _tensors(list(value.values()), found)
    elif isinstance(value, list | tuple):
        for each in value:
            _tensors(each, found)
    elif type(value).__module__.startswith("transformers.") and hasattr(value, "__dict__"):
        _tensors(vars(value), found)


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
