"""What writes: the base in the dtype to sample in, one position of all rows at a time, with its own logits.

`ModuleDecoder` runs the model's own modules and so serves any Hugging Face causal model. `LlamaDecoder` does the Llama
family's arithmetic in a third of the operations, and is taken only where it gives the model's own logits.

Shapes: B rows, P positions, D width, V vocabulary, H query heads, K key heads, N = H + 2 K heads, W width of a head.
"""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from keeptune.models.adapters import causal_model, remove_idle_adapter

# Families whose decoder is `LlamaDecoder` at every position. The comparison of logits alone could not tell that: a
# model may do something else only far into a row.
_LLAMA_FAMILY = ("llama", "mistral", "qwen2", "qwen3")
_COMPARED_ROWS, _COMPARED_POSITIONS = 4, 8
# Rounding to bfloat16 moves the logits of the models tried by 0.01 of their length, whichever way they are computed.
_TOLERANCE, _TOLERANCE_16_BIT = 1e-3, 0.05


class Writer(Protocol):
    """Continues rows one position at a time, keeping their keys and values."""

    def begin(self, rows: int, length: int) -> None:
        """Start anew, with room for `rows` rows of `length` positions."""
        ...

    def step(self, tokens_B1: Tensor) -> Tensor:
        """Read one more token a row; the logits [B, V] of the next."""
        ...


def make_decoder(model: nn.Module, dtype: torch.dtype, rows: int) -> Writer:
    """The fastest writer with the logits of the causal model inside `model`, for `rows` rows at a time.

    Under autocast every step would cast the weights anew, so they are cast once; and on a CPU every product would lay
    them out anew for the matrix instructions, so that is done once too. Only an accelerator's model that already has
    the dtype is not copied.
    """
    causal = causal_model(model)
    own = next(causal.parameters())
    if own.device.type == "cpu" or own.dtype != dtype:
        causal = copy.deepcopy(causal).to(dtype).eval()
        # A forward patched onto the instance (as trainers do) belongs to the original and would run that.
        causal.__dict__.pop("forward", None)
        remove_idle_adapter(causal, _compared_tokens(causal))
    packs = own.device.type == "cpu" and dtype == torch.bfloat16 and torch.backends.mkldnn.is_available()
    packs = packs and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if _is_llama(causal):
        writer = LlamaDecoder(causal, rows if packs else None)
        if _same_logits(writer, causal):
            return writer
    if packs:
        _pack_linears(causal, rows)
    return ModuleDecoder(causal)


class ModuleDecoder:
    """The model's own modules, keys and values written in place."""

    def __init__(self, causal: Any) -> None:
        self.causal = causal

    def begin(self, rows: int, length: int) -> None:
        """See `Writer.begin`."""
        self.cache = DynamicCache(config=self.causal.config)
        # Only plain layers grow by concatenation; sliding-window and state-space layers keep their own rule.
        self.cache.layers = [_Room(length) if type(layer) is DynamicLayer else layer for layer in self.cache.layers]

    def step(self, tokens_B1: Tensor) -> Tensor:
        """See `Writer.step`."""
        logits_B1V: Tensor = self.causal(input_ids=tokens_B1, past_key_values=self.cache, use_cache=True).logits
        return logits_B1V[:, -1]


class LlamaDecoder:
    """The decoder of the Llama family, written out.

    Args:
        causal: a model of the family.
        pack_rows: lay the weights out in oneDNN's own way for so many rows; None to use them as they are.
    """

    def __init__(self, causal: Any, pack_rows: int | None) -> None:
        self.embed, self.rotary = causal.model.embed_tokens, causal.model.rotary_emb
        self.layers = [_LlamaLayer(layer, pack_rows) for layer in causal.model.layers]
        self.norm = _Norm(causal.model.norm)
        self.head = _Product([causal.lm_head], pack_rows)

    def begin(self, rows: int, length: int) -> None:
        """See `Writer.begin`."""
        self.position = 0
        for layer in self.layers:
            room = (rows, layer.key_heads, length, layer.head_width)
            layer.keys_BKPW, layer.values_BKPW = (self.embed.weight.new_empty(room) for _ in range(2))

    def step(self, tokens_B1: Tensor) -> Tensor:
        """See `Writer.step`."""
        hidden_BD = self.embed(tokens_B1[:, 0])
        position = torch.full((1, 1), self.position, device=hidden_BD.device)
        cos_W, sin_W = (table[0, 0] for table in self.rotary(hidden_BD, position))
        # The rotation swaps the halves of a head and turns the sign of one: turned here, once for all heads and layers.
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
        self.read = _Product([attention.q_proj, attention.k_proj, attention.v_proj], pack_rows)
        self.head_norm = None
        if hasattr(attention, "q_norm"):
            query_W, key_W = attention.q_norm.weight, attention.k_norm.weight
            weight = torch.cat((query_W.expand(self.heads, -1), key_W.expand(self.key_heads, -1)))
            self.head_norm = _Norm(attention.q_norm, weight)
        self.out = _Product([attention.o_proj], pack_rows)
        self.gate, self.up, self.down = (_Product([m], pack_rows) for m in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
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
        hidden_BD = self.out.plus(attended_BH1W.reshape(rows, -1), hidden_BD)
        normed_BD = self.mlp_norm(hidden_BD)
        return self.down.plus(self.up.times(normed_BD, self.gate.silu(normed_BD)), hidden_BD)


class _Norm:
    """Root-mean-square norm over the last axis, computed in fp32."""

    def __init__(self, norm: Any, weight: Tensor | None = None) -> None:
        self.weight = (norm.weight if weight is None else weight).detach()
        self.eps = norm.variance_epsilon

    def __call__(self, hidden: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True, dtype=torch.float32)
        scale = length.square_().div_(hidden.shape[-1]).add_(self.eps).rsqrt_()
        return (hidden * scale).to(hidden.dtype) * self.weight


class _Product:
    """One or several `nn.Linear` over the same input, side by side; packed, what follows takes no extra pass."""

    def __init__(self, linears: list[nn.Linear], pack_rows: int | None) -> None:
        self.linears = linears
        self.packed = None
        if pack_rows is not None:
            weight = torch.cat([linear.weight.detach() for linear in linears])
            self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, pack_rows)
            self.bias = None if linears[0].bias is None else torch.cat([linear.bias.detach() for linear in linears])
            self.linears = []

    def __call__(self, hidden: Tensor) -> Tensor:
        return self._packed(hidden, "none") if self.packed is not None else self._plain(hidden)

    def silu(self, hidden: Tensor) -> Tensor:
        return self._packed(hidden, "swish") if self.packed is not None else functional.silu(self._plain(hidden))

    def times(self, hidden: Tensor, other: Tensor) -> Tensor:
        return self._packed(hidden, "mul", other) if self.packed is not None else self._plain(hidden) * other

    def plus(self, hidden: Tensor, other: Tensor) -> Tensor:
        return self._packed(hidden, "add", other) if self.packed is not None else self._plain(hidden) + other

    def _plain(self, hidden: Tensor) -> Tensor:
        return torch.cat([linear(hidden) for linear in self.linears], dim=-1)

    def _packed(self, hidden: Tensor, then: str, other: Tensor | None = None) -> Tensor:
        product = torch.ops.mkldnn._linear_pointwise
        if other is None:
            return product(hidden, self.packed, self.bias, then, [], "")
        return product.binary(hidden, other, self.packed, self.bias, then)


def _is_llama(causal: Any) -> bool:
    """Whether the model is of the family, attends to the whole row, and is not quantised, adapted or spread out."""
    if causal.config.model_type not in _LLAMA_FAMILY:
        return False
    whole_rows = all(type(layer) is DynamicLayer for layer in DynamicCache(config=causal.config).layers)
    products = {type(module) for module in causal.modules() if hasattr(module, "in_features")}
    return whole_rows and products == {nn.Linear} and len({weight.device for weight in causal.parameters()}) == 1


@torch.inference_mode()
def _same_logits(writer: Writer, causal: Any) -> bool:
    """Whether `writer` gives the logits of `causal` up to rounding, on rows of random tokens.

    Judged at the median position: at a row's first ones some models' 16-bit logits are themselves far off.
    """
    tokens_BP = _compared_tokens(causal)
    own_BPV = causal(input_ids=tokens_BP, use_cache=False).logits.float()
    writer.begin(*tokens_BP.shape)
    stepped_BPV = torch.stack([writer.step(tokens_B1) for tokens_B1 in tokens_BP.split(1, dim=1)], dim=1).float()
    off_BP = (stepped_BPV - own_BPV).norm(dim=-1) / own_BPV.norm(dim=-1)
    return bool(off_BP.median() <= (_TOLERANCE_16_BIT if causal.dtype.itemsize == 2 else _TOLERANCE))


def _compared_tokens(causal: Any) -> Tensor:
    vocabulary = causal.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (_COMPARED_ROWS, _COMPARED_POSITIONS), generator=generator).to(causal.device)


class _Room(DynamicLayer):
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


class _PackedLinear(nn.Module):
    """`nn.Linear` for inference over a weight in oneDNN's own layout."""

    def __init__(self, linear: nn.Linear, rows: int) -> None:
        super().__init__()
        self.product = _Product([linear], rows)
        # Models ask their linear layers for the weight's dtype.
        self.weight = linear.weight

    def forward(self, hidden: Tensor) -> Tensor:
        return self.product(hidden)


def _pack_linears(module: nn.Module, rows: int) -> None:
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, _PackedLinear(child, rows))
        else:
            _pack_linears(child, rows)
