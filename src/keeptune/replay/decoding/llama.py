"""The decoder of the Llama family written out: the same arithmetic in a third of the operations.

Shapes: B rows, P positions, D width, V vocabulary, H query heads, K key heads, N = H + 2 K heads, W width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from keeptune.replay.decoding.linear import FusedLinear

# Architectures that `LlamaDecoder` computes at every position. Comparing logits on short rows could not show that: a
# model may do something else only far into a row.
_LLAMA_FAMILY = ("llama", "mistral", "qwen2", "qwen3")


def is_llama(causal: Any) -> bool:
    """Whether the model is of the family, with full attention, not quantized, without adapter, on one device."""
    if causal.config.model_type not in _LLAMA_FAMILY:
        return False
    full_attention = all(type(layer) is DynamicLayer for layer in DynamicCache(config=causal.config).layers)
    products = {type(module) for module in causal.modules() if hasattr(module, "in_features")}
    return full_attention and products == {nn.Linear} and len({weight.device for weight in causal.parameters()}) == 1


class LlamaDecoder:
    """The decoder of the Llama family (see `is_llama`); weights packed for `pack_rows` (see `FusedLinear`)."""

    def __init__(self, causal: Any, pack_rows: int | None) -> None:
        self.embed, self.rotary = causal.model.embed_tokens, causal.model.rotary_emb
        self.layers = [_LlamaLayer(layer, pack_rows) for layer in causal.model.layers]
        self.norm = _Norm(causal.model.norm)
        self.head = FusedLinear([causal.lm_head], pack_rows)

    def begin(self, rows: int, length: int) -> None:
        self.position = 0
        for layer in self.layers:
            shape = (rows, layer.key_heads, length, layer.head_width)
            layer.keys_BKPW, layer.values_BKPW = (self.embed.weight.new_empty(shape) for _ in range(2))

    def step(self, tokens_B1: Tensor) -> Tensor:
        hidden_BD = self.embed(tokens_B1[:, 0])
        position = torch.full((1, 1), self.position, device=hidden_BD.device)
        cos_W, sin_W = (table[0, 0] for table in self.rotary(hidden_BD, position))
        # The rotation swaps the halves of a head and negates one. Negate the sine once for all heads and layers.
        low, high = sin_W.chunk(2)
        sin_W = torch.cat((-low, high))
        for layer in self.layers:
            hidden_BD = layer.step(hidden_BD, self.position, cos_W, sin_W)
        self.position += 1
        return self.head(self.norm(hidden_BD))


class _LlamaLayer:
    keys_BKPW: Tensor
    values_BKPW: Tensor

    def __init__(self, layer: Any, pack_rows: int | None) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.head_width, self.scaling = attention.head_dim, attention.scaling
        self.heads = attention.q_proj.out_features // self.head_width
        self.key_heads = attention.k_proj.out_features // self.head_width
        self.read = FusedLinear([attention.q_proj, attention.k_proj, attention.v_proj], pack_rows)
        self.head_norm = None
        if hasattr(attention, "q_norm"):
            query_W, key_W = attention.q_norm.weight, attention.k_norm.weight
            weight = torch.cat((query_W.expand(self.heads, -1), key_W.expand(self.key_heads, -1)))
            self.head_norm = _Norm(attention.q_norm, weight)
        self.out = FusedLinear([attention.o_proj], pack_rows)
        self.gate, self.up, self.down = (
            FusedLinear([m], pack_rows) for m in (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        )
        self.attention_norm, self.mlp_norm = _Norm(layer.input_layernorm), _Norm(layer.post_attention_layernorm)

    def step(self, hidden_BD: Tensor, position: int, cos_W: Tensor, sin_W: Tensor) -> Tensor:
        rows, rotated = len(hidden_BD), self.heads + self.key_heads
        read_BNW = self.read(self.attention_norm(hidden_BD)).view(rows, -1, self.head_width)
        plain = read_BNW[:, :rotated] if self.head_norm is None else self.head_norm(read_BNW[:, :rotated])
        swapped = plain.unflatten(-1, (2, -1)).flip(-2).flatten(-2)
        turned = torch.addcmul(plain * cos_W, swapped, sin_W)
        self.keys_BKPW[:, :, position] = turned[:, self.heads :]
        self.values_BKPW[:, :, position] = read_BNW[:, rotated:]
        attended_BH1W = functional.scaled_dot_product_attention(
            turned[:, : self.heads, None],
            self.keys_BKPW[:, :, : position + 1],
            self.values_BKPW[:, :, : position + 1],
            scale=self.scaling,
            enable_gqa=self.heads != self.key_heads,
        )
        hidden_BD = self.out(attended_BH1W.reshape(rows, -1), "plus", hidden_BD)
        normed_BD = self.mlp_norm(hidden_BD)
        return self.down(self.up(normed_BD, "times", self.gate(normed_BD, "silu")), "plus", hidden_BD)


class _Norm:
    """Root-mean-square norm over the last axis, computed in fp32."""

    def __init__(self, norm: Any, weight: Tensor | None = None) -> None:
        self.weight = (norm.weight if weight is None else weight).detach()
        self.eps = norm.variance_epsilon

    def __call__(self, hidden: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True, dtype=torch.float32)
        scale = length.square_().div_(hidden.shape[-1]).add_(self.eps).rsqrt_()
        return (hidden * scale).to(hidden.dtype) * self.weight
