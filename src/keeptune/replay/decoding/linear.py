"""Linear layers for inference, in oneDNN's packed layout if this machine and this torch have it.

A bfloat16 product on a CPU lays the weight out for the matrix instructions at every call. Packed once, a decoding step
is faster. The operators are private to torch, so `packing_works` tries them first and otherwise plain layers are used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from keeptune.log import logger

_PROBE_TOLERANCE = 0.02
Then = Literal["product", "silu", "times", "plus"]
# What follows a product: its name in oneDNN, and the plain form.
_THEN: dict[Then, tuple[str, Callable[[Tensor, Any], Tensor]]] = {
    "product": ("none", lambda product, other: product),
    "silu": ("swish", lambda product, other: functional.silu(product)),
    "times": ("mul", torch.mul),
    "plus": ("add", torch.add),
}


class FusedLinear:
    """One or several `nn.Linear` over the same input, concatenated; packed, the operation after it costs nothing.

    The weights are packed for `pack_rows` input rows; None uses the layers as they are.
    """

    def __init__(self, linears: list[nn.Linear], pack_rows: int | None) -> None:
        self.linears = linears
        self.packed: Tensor | None = None
        if pack_rows is not None:
            weight = torch.cat([linear.weight.detach() for linear in linears])
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, pack_rows)
            self.bias = None if linears[0].bias is None else torch.cat([linear.bias.detach() for linear in linears])
            self.linears = []

    def __call__(self, hidden: Tensor, then: Then = "product", other: Tensor | None = None) -> Tensor:
        """The product itself, its SiLU, or the product times or plus `other`."""
        fused, plain = _THEN[then]
        if self.packed is None:
            return plain(torch.cat([linear(hidden) for linear in self.linears], dim=-1), other)
        product = torch.ops.mkldnn._linear_pointwise
        if other is None:
            return product(hidden, self.packed, self.bias, fused, [], "")
        return product.binary(hidden, other, self.packed, self.bias, fused)


class PackedLinear(nn.Linear):
    """`nn.Linear` for inference over a packed weight, with every attribute of the layer that it stands for."""

    def __init__(self, linear: nn.Linear, rows: int) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.product = FusedLinear([linear], rows)
        self.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        """The product."""
        return self.product(input)


def pack_linears(module: nn.Module, rows: int) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Replace every `nn.Linear` inside `module` by a `PackedLinear`. Returns what `unpack_linears` needs."""
    replaced = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear
    ]
    for parent, name, child in replaced:
        setattr(parent, name, PackedLinear(child, rows))
    return replaced


def unpack_linears(replaced: list[tuple[nn.Module, str, nn.Linear]]) -> None:
    """Put the layers back that `pack_linears` replaced."""
    for parent, name, child in replaced:
        setattr(parent, name, child)


@cache
@torch.inference_mode()
def packing_works() -> bool:
    """Whether packed bfloat16 products exist here and equal plain ones: tried once on a small product, and logged."""
    try:
        if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
            logger.debug("oneDNN has no bfloat16 products on this machine: weights are not packed")
            return False
        differs = _probe()
    except (AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
        logger.warning(f"oneDNN's packed products cannot be used with torch {torch.__version__}: {error}")
        return False
    if differs:
        logger.warning(f"oneDNN's packed products differ from plain ones ({differs}): weights are not packed")
    return not differs


def _probe() -> str:
    """The first packed operation that differs from the plain one, by name; empty if all are equal."""
    # Without initialization: that would draw from the global generator, which belongs to training.
    linear = nn.utils.skip_init(nn.Linear, 48, 32, dtype=torch.bfloat16)
    linear.weight.copy_(torch.arange(32 * 48).view(32, 48).remainder(17) / 16 - 0.5)
    linear.bias.copy_(torch.arange(32) / 32)
    hidden = (torch.arange(4 * 48).view(4, 48).remainder(13) / 8 - 0.75).bfloat16()
    other = (torch.arange(4 * 32).view(4, 32).remainder(7) / 4).bfloat16()
    packed, plain = FusedLinear([linear], 4), FusedLinear([linear], None)
    for name in _THEN:
        second = other if name in ("times", "plus") else None
        left, right = packed(hidden, name, second), plain(hidden, name, second)
        if left.shape != right.shape or (left - right).float().norm() > _PROBE_TOLERANCE * right.float().norm():
            return name
    return ""
