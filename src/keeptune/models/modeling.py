"""A model as (final hidden states, head); its fingerprint; its dtype and attention implementation.

Shapes: B rows, T positions, D width, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.models.adapters import base_parameters, causal_model, evaluating, has_adapter, own_forward, peft_states
from keeptune.models.anatomy import anatomy_of, entering_head, output_head
from keeptune.models.quantized import is_packed, packed_buffers, stored_tensors
from keeptune.models.sharded import whole
from keeptune.objective import Head

_FINGERPRINT_VALUES = 4096
_SHORT_ROW = 256
_AUTOCASTS: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def hidden_states(model: nn.Module, input_BT: Tensor, position_BT: Tensor | None = None) -> Tensor:
    """The final hidden states, as they enter the output layer: [B, T, D].

    `position_BT` start from 0 for each document packed into a row, so that documents do not attend to each other.
    Raises `ConfigError` as `anatomy_of` does.
    """
    causal = causal_model(model)
    by_decoder = anatomy_of(causal).by_decoder
    if own_forward(model):
        return peft_states(model, input_BT, position_BT, by_decoder)
    return entering_head(causal, input_BT, position_BT, by_decoder)


def head_of(model: nn.Module) -> Head:
    """The model's output layer. Its weight is the model's own parameter, gathered if FSDP shards it.

    Raises `ConfigError` as `anatomy_of` does.
    """
    causal = causal_model(model)
    anatomy = anatomy_of(causal)
    return output_head(causal, anatomy.scale, anatomy.softcap)


def trained_by_text(model: nn.Module) -> int:
    """Trainable parameters that text reaches: all but those of a vision tower and its like."""
    causal = causal_model(model)
    idle = [module for module in map(causal.get_submodule, anatomy_of(causal).idle) if next(module.children(), None)]
    towers = {parameter for module in idle for parameter in module.parameters()}
    return sum(p.numel() for p in model.parameters() if p.requires_grad and p not in towers)


def check_head(model: nn.Module) -> None:
    """Raise `ConfigError` if (hidden states, head) do not give the model's own logits; see `anatomy_of`."""
    anatomy_of(causal_model(model))


def has_head(model: nn.Module) -> bool:
    """Whether (hidden states, head) give the model's own logits; see `check_head`."""
    try:
        check_head(model)
    except ConfigError:
        return False
    return True


@torch.no_grad()
def fingerprint(model: nn.Module) -> str:
    """Fingerprint of the base weights: sha256 over every tensor's name, shape and evenly spaced values in bfloat16.

    It does not depend on adapters, nor on the dtype the model was loaded in (up to bfloat16). Of quantized weights it
    reads what is stored, integers as bytes; a forward pass does not change it.
    """
    digest = hashlib.sha256()
    for name, tensor in _stored(model):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(_sampled_bytes(tensor))
    return digest.hexdigest()


@torch.no_grad()
def whole_fingerprint(model: nn.Module) -> str:
    """`fingerprint` of a model as it predicts: with an adapter in its layers, the adapter's values are part of it."""
    causal, base = causal_model(model), {id(tensor) for _, tensor in base_parameters(model)}
    added = [(name, tensor) for name, tensor in causal.named_parameters() if id(tensor) not in base]
    if not added or not has_adapter(causal):
        return fingerprint(model)
    # Settings such as LoRA's alpha change the predictions too.
    settings = [sorted((key, str(value)) for key, value in config.to_dict().items() if not isinstance(value, set))
                for config in causal.peft_config.values()]  # fmt: skip
    digest = hashlib.sha256(f"{fingerprint(model)}{settings}".encode())
    for name, tensor in sorted(added):
        digest.update(f"{name}{tuple(tensor.shape)}".encode() + _sampled_bytes(tensor))
    return digest.hexdigest()


def parameter_marks(model: nn.Module) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and sha256 of every base tensor, of the values that its fingerprint has: to say which of them changed."""
    return {name: (tuple(t.shape), hashlib.sha256(_sampled_bytes(t)).hexdigest()) for name, t in _stored(model)}


def _stored(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors that the base's weights consist of, with their names; see `stored_tensors`."""
    owners = {id(p): module for module in model.modules() for p in module.parameters(recurse=False)}
    for name, weight in sorted((*base_parameters(model), *packed_buffers(model))):
        for part, tensor in stored_tensors(weight, owners.get(id(weight))).items():
            yield f"{name}{part}", tensor


@torch.no_grad()
def _sampled_bytes(tensor: Tensor) -> bytes:
    flat = whole(tensor.detach()).reshape(-1)
    values = flat[:: max(1, flat.numel() // _FINGERPRINT_VALUES)].cpu()
    values = values.bfloat16() if values.is_floating_point() else values
    # A clone: `numpy` pins the storage that it reads, and FSDP2 could no longer free what it gathered.
    return values.clone(memory_format=torch.contiguous_format).view(torch.uint8).numpy().tobytes()


def has_bf16(device: torch.device | str) -> bool:
    """Whether the device has bfloat16 matrix instructions, so that autocast is faster than fp32."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def training_dtype(model: nn.Module) -> torch.dtype:
    """The dtype of training's products: bfloat16 for fp32 weights if the device has it, else the weights' dtype.

    Models whose forward pass fails under autocast, because they mix dtypes, stay in fp32.
    """
    parameter = next(p for p in model.parameters() if not is_packed(p))
    if parameter.dtype == torch.float32 and has_bf16(parameter.device) and autocasts(causal_model(model)):
        return torch.bfloat16
    return parameter.dtype


def autocasts(causal: Any) -> bool:
    """Whether a forward pass of the model succeeds under autocast to bfloat16; tried once a model."""
    if causal not in _AUTOCASTS:
        input_BT = torch.zeros(1, 2, dtype=torch.int64, device=causal.device)
        try:
            with evaluating(causal), torch.no_grad(), autocast(causal.device, torch.bfloat16):
                causal(input_ids=input_BT, use_cache=False)
            _AUTOCASTS[causal] = True
        except RuntimeError as error:
            _AUTOCASTS[causal] = False
            logger.info(f"{type(causal).__name__} fails under autocast to bfloat16 ({error}): computing in fp32")
    return _AUTOCASTS[causal]


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Autocast to `dtype` on `device`; disabled if `dtype` is not a 16-bit dtype.

    Cast weights are cached only if gradients are on: without a backward pass the copy would waste memory.
    """
    narrow, cached = dtype.itemsize == 2, torch.is_grad_enabled()
    return torch.autocast(device.type, dtype if narrow else torch.bfloat16, enabled=narrow, cache_enabled=cached)


def select_attention(model: Any, longest_row: int) -> None:
    """On a CPU, use eager attention for rows of at most 256 tokens; results are the same up to rounding.

    There the backward pass of torch's flash attention in bfloat16 takes several times as long. Longer rows keep it: it
    needs no row × row matrix.
    """
    if model.device.type == "cpu" and longest_row <= _SHORT_ROW and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")
