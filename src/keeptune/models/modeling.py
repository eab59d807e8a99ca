"""A model as (final hidden states, head); its fingerprint; its dtype and attention implementation.

Shapes: B rows, T positions, D width, V vocabulary.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial

from keeptune.errors import ConfigError
from keeptune.models.adapters import base_parameters, causal_model, evaluating
from keeptune.objective import Head

_FINGERPRINT_VALUES = 4096
_HEAD_CHECK_TOKENS = 8
_HEAD_TOLERANCE = 1e-3
_SHORT_ROW = 256


def hidden_states(model: nn.Module, input_BT: Tensor, position_BT: Tensor | None = None) -> Tensor:
    """The final hidden states, after the last norm and before the head: [B, T, D].

    `position_BT` start from 0 for each document packed into a row, so that documents do not attend to each other.
    """
    decoder = causal_model(model).get_decoder()
    return decoder(input_ids=input_BT, position_ids=position_BT, use_cache=False).last_hidden_state


def head_of(model: nn.Module) -> Head:
    """The model's output layer. Its weight is the model's own parameter, gathered if FSDP shards it."""
    causal = causal_model(model)
    layer = causal.get_output_embeddings()
    config = causal.config.get_text_config()
    scale = 1.0 / float(getattr(config, "logits_scaling", None) or 1.0)
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        scale *= float(getattr(config, name, None) or 1.0)
    return Head(
        weight_VD=_whole(layer.weight),
        bias_V=None if getattr(layer, "bias", None) is None else _whole(layer.bias),
        scale=scale,
        softcap=getattr(config, "final_logit_softcapping", None),
    )


def _whole(parameter: Tensor) -> Tensor:
    """The parameter, gathered from its shards. Gradients return to the shards averaged, as FSDP's own do."""
    if not isinstance(parameter, DTensor):
        return parameter
    mesh = parameter.device_mesh
    whole: Tensor = parameter.full_tensor(grad_placements=[Partial()] * mesh.ndim)
    if whole.requires_grad:
        whole.register_hook(lambda gradient: gradient / mesh.size())
    return whole


@torch.no_grad()
def check_head(model: nn.Module) -> None:
    """Raise `ConfigError` if (hidden states, head) do not give the model's own logits, for an unknown architecture."""
    causal = causal_model(model)
    weight = causal.get_output_embeddings().weight
    input_BT = torch.arange(_HEAD_CHECK_TOKENS, device=weight.device).remainder(len(weight))[None]
    with evaluating(causal):
        own = causal(input_ids=input_BT, use_cache=False).logits.float()
        rebuilt = head_of(model).logits(hidden_states(model, input_BT)).float()
    if own.shape != rebuilt.shape or (own - rebuilt).abs().max() > _HEAD_TOLERANCE * own.abs().max().clamp(min=1.0):
        raise ConfigError(
            f"the logits of {type(causal).__name__} cannot be rebuilt from its hidden states and head",
            "this architecture is not supported yet; please report the model's name",
        )


@torch.no_grad()
def fingerprint(model: nn.Module) -> str:
    """Fingerprint of the base weights: sha256 over every tensor's name, shape and evenly spaced values in bfloat16.

    It does not depend on adapters, nor on the dtype the model was loaded in (up to bfloat16).
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(base_parameters(model)):
        flat = tensor.detach().reshape(-1)
        step = max(1, flat.numel() // _FINGERPRINT_VALUES)
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(flat[::step].to("cpu", torch.bfloat16).view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def has_bf16(device: torch.device | str) -> bool:
    """Whether the device has bfloat16 matrix instructions, so that autocast is faster than fp32."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def training_dtype(model: nn.Module) -> torch.dtype:
    """The dtype of training's products: bfloat16 for fp32 weights if the device has it, else the weights' dtype."""
    parameter = next(model.parameters())
    if parameter.dtype == torch.float32 and has_bf16(parameter.device):
        return torch.bfloat16
    return parameter.dtype


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
