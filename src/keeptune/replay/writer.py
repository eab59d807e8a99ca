"""The copy of the base that writes: in the dtype to sample in, with its weights laid out for decoding."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from keeptune.replay.teacher import causal_model


def writing_copy(model: nn.Module, dtype: torch.dtype, rows: int) -> Any:
    """The causal model inside `model` as it decodes fastest, with equal logits; `model` itself on an accelerator.

    Under autocast every step would cast the weights anew, so they are cast once; and on a CPU every product would lay
    them out anew for the matrix instructions, so that is done once too, for `rows` rows.
    """
    causal = causal_model(model)
    device = next(causal.parameters()).device
    if device.type != "cpu" and next(causal.parameters()).dtype == dtype:
        return causal
    writer = copy.deepcopy(causal).to(dtype).eval()
    # A forward patched onto the instance (as trainers do) belongs to the original and would run that.
    writer.__dict__.pop("forward", None)
    if device.type == "cpu" and dtype == torch.bfloat16 and torch.backends.mkldnn.is_available():
        _pack_linears(writer, rows)
    return writer


class _PackedLinear(nn.Module):
    """`nn.Linear` for inference over a weight in oneDNN's own layout."""

    def __init__(self, linear: nn.Linear, rows: int) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows)
        self.bias = linear.bias
        self.weight = linear.weight

    def forward(self, hidden: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(hidden, self.packed, self.bias, "none", [], "")
        return product


def _pack_linears(module: nn.Module, rows: int) -> None:
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, _PackedLinear(child, rows))
        else:
            _pack_linears(child, rows)
