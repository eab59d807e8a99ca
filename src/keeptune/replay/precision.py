"""How the model computes: the dtype that training multiplies in, and the attention, chosen once for all uses."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_SHORT_ROW = 256


def has_bf16(device: torch.device | str) -> bool:
    """Whether the device has bfloat16 matrix instructions, so that autocast pays."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def training_dtype(model: nn.Module) -> torch.dtype:
    """bfloat16 where the machine has it (autocast over fp32 weights, or bfloat16 weights), else the model's own."""
    parameter = next(model.parameters())
    if parameter.dtype == torch.float32 and has_bf16(parameter.device):
        return torch.bfloat16
    return parameter.dtype


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Autocast to `dtype` on `device`; off when `dtype` is no 16-bit one.

    Cast weights are kept for the backward pass only: where there is none, a second copy of the model is of no use.
    """
    narrow = dtype.itemsize == 2
    return torch.autocast(
        device.type, dtype if narrow else torch.bfloat16, enabled=narrow, cache_enabled=torch.is_grad_enabled()
    )


def suit_attention(model: Any, longest_row: int) -> None:
    """On a CPU, rows of at most 256 tokens attend through plain matrix products.

    There the backward pass of torch's flash attention in bfloat16 takes several times as long as theirs; longer rows
    keep it, for it needs no tables of row × row. The values are the same up to rounding.
    """
    if model.device.type == "cpu" and longest_row <= _SHORT_ROW and model.config._attn_implementation == "sdpa":
        model.set_attn_implementation("eager")
