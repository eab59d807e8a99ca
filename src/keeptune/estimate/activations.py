"""Bytes that autograd saves in a forward pass, counted in the library's own forward pass on tensors without values."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForCausalLM

from keeptune.models.guarded import quiet

_SHORT_ROW = 256  # as in `models.modeling.select_attention`


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of one forward pass."""

    count: int
    length: int


def saved_bytes(
    config: Any, rows: Rows, dtype: torch.dtype, *, lora: int | None = None, gathered: bool = False, gpu: bool = False
) -> int:
    """Bytes that autograd saves in a forward pass up to the final hidden states: of one and two layers, then on a line.

    Under autocast they hold a copy of each weight in `dtype`. FSDP2 (`gathered`) frees such copies after their layer.
    """
    layers = config.get_text_config().num_hidden_layers
    one, two = (_saved_by(config, count, rows, dtype, lora, gathered, gpu) for count in (1, 2))
    return one + (layers - 1) * (two - one)


def _saved_by(
    config: Any, layers: int, rows: Rows, dtype: torch.dtype, lora: int | None, gathered: bool, gpu: bool
) -> int:
    small = copy.deepcopy(config)
    text = small.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    attention = "eager" if rows.length <= _SHORT_ROW and not gpu else "sdpa"
    with torch.device("meta"), quiet():
        model: Any = AutoModelForCausalLM.from_config(small, attn_implementation=attention).train()
        if lora:
            _add_lora(model, lora)
    with FakeTensorMode(), quiet():
        own = _place(model, dtype if gathered else torch.float32)
        ids = torch.zeros(rows.count, rows.length, dtype=torch.int64)
        narrow = dtype.itemsize == 2 and not gathered
        with _counting(own) as found, torch.autocast("cpu", dtype if narrow else torch.bfloat16, enabled=narrow):
            hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        del hidden
        return sum(found.values())


def _place(model: nn.Module, dtype: torch.dtype) -> set[int]:
    """Put tensors without values that count as the CPU's in place of those of a model on `meta`; their storages."""
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for place in (module._parameters, module._buffers):
            for name, old in place.items():
                if old is None:
                    continue
                if id(old) not in made:
                    own = isinstance(old, nn.Parameter)
                    new = torch.empty(old.shape, dtype=dtype if own else old.dtype)
                    made[id(old)] = nn.Parameter(new, old.requires_grad) if own else new
                place[name] = made[id(old)]  # type: ignore[assignment]
    return {tensor.untyped_storage()._cdata for tensor in made.values()}


@contextmanager
def _counting(own: set[int]) -> Iterator[dict[int, int]]:
    """Bytes of the tensors that autograd saves in the block, by storage, without those of the model itself."""
    found: dict[int, int] = {}
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own and storage._cdata not in found:
            found[storage._cdata] = storage.nbytes()
            kept.append(tensor)  # so that no later storage takes its place
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def _add_lora(model: Any, rank: int) -> None:
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 — slow

    get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))
