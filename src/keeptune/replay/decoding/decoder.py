"""Decoding: a copy of the base in the sampling dtype, one position of all rows at a time, with the base's own logits.

`make_decoder` tries the forms of a decoder from the fastest to the slowest, and gives the first whose logits, one token
at a time, are those of the full forward on the model at hand.

Shapes: B rows, P positions, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.models.adapters import causal_model, evaluating, remove_idle_adapter
from keeptune.models.guarded import first_line
from keeptune.models.modeling import autocast
from keeptune.models.quantized import is_quantized
from keeptune.models.sharded import is_sharded
from keeptune.replay.decoding.linear import pack_linears, packing_works, unpack_linears
from keeptune.replay.decoding.llama import LlamaDecoder, is_llama
from keeptune.replay.decoding.modules import ModuleDecoder, OwnCacheDecoder, PrefixDecoder
from keeptune.replay.decoding.proof import OTHER_TEXT, Proof, probe_tokens

_SHORT_PROBE = 8


class Decoder(Protocol):
    """Continues rows one position at a time, with a cache of keys and values."""

    def begin(self, rows: int, length: int) -> None:
        """Start `rows` new rows of at most `length` positions."""

    def step(self, tokens_B1: Tensor) -> Tensor:
        """Read one more token of each row; returns the logits [B, V] of the next token."""


def make_decoder(model: nn.Module, dtype: torch.dtype, rows: int, cached: bool = True) -> Decoder:
    """The fastest decoder with the logits of the causal model inside `model`, for `rows` rows at a time.

    The weights are copied to `dtype` once, because autocast would cast them at every step. On a CPU with bfloat16 they
    are also packed once (see `FusedLinear`). A model on an accelerator that already has the dtype, a quantized or a
    sharded one is not copied. Without `cached` it is the slowest decoder, which reads rows from their start each time.

    Raises `ConfigError` if no decoder has the model's logits.
    """
    given = causal_model(model)
    name, faults = type(given).__name__, list[str]()
    with evaluating(given):
        if cached:
            decoder = _with_cache(given, dtype, rows, faults)
            if decoder is not None:
                if faults:
                    logger.info(f"{name} is sampled by {type(decoder).__name__}: {'; '.join(faults)}")
                return decoder
            logger.warning(
                f"{name} is sampled without a cache, which takes many times longer: with a cache its predictions are"
                f" not those that training sees ({'; '.join(faults)})"
            )
        slowest = PrefixDecoder(given, dtype)
        with autocast(given.device, dtype):
            fault = Proof.of(given, dtype).fault(slowest)
    if fault is None:
        return slowest
    raise ConfigError(
        f"{name} cannot be sampled: token by token its predictions are not those that training sees"
        f" ({'; '.join([*faults, f'{PrefixDecoder.__name__}: {fault}'])})",
        OTHER_TEXT,
    )


def _with_cache(given: Any, dtype: torch.dtype, rows: int, faults: list[str]) -> Decoder | None:
    """The fastest decoder with a cache and the model's logits; None if there is none. Appends to `faults`."""
    own, copied = next(given.parameters()), not is_quantized(given) and not is_sharded(given)
    causal, exact = given, None
    if copied and (own.device.type == "cpu" or own.dtype != dtype):
        # Weights are copied in `dtype` at once: a copy in their own dtype first would be a whole model more in memory.
        weights = {id(p): nn.Parameter(p.detach().to(dtype, copy=True), p.requires_grad) for p in given.parameters()}
        causal = copy.deepcopy(given, {**weights}).to(dtype).eval()
        # A forward patched onto the instance (as trainers do) belongs to the original and would run the original.
        causal.__dict__.pop("forward", None)
        remove_idle_adapter(causal, probe_tokens(causal, _SHORT_PROBE))
        exact = given if own.dtype.itemsize > dtype.itemsize else None
    packs = copied and own.device.type == "cpu" and dtype == torch.bfloat16 and packing_works()
    try:
        proof = Proof.of(causal, dtype, exact)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        faults.append(f"a copy in {str(dtype).removeprefix('torch.')}: {first_line(error)}")
        return None
    forms = _sharded_forms(causal, dtype) if is_sharded(causal) else _forms(causal, rows if packs else None)
    for decoder in forms:
        fault = proof.fault(decoder)
        if fault is None:
            return decoder
        faults.append(f"{type(decoder).__name__}: {fault}")
    return None


def _sharded_forms(causal: Any, dtype: torch.dtype) -> Iterator[Decoder]:
    """Decoders that call the whole model, which gathers its weights; they cast them at every step."""
    yield ModuleDecoder(causal, dtype)
    yield OwnCacheDecoder(causal, dtype)


def _forms(causal: Any, pack_rows: int | None) -> Iterator[Decoder]:
    """Every decoder with a cache, the fastest first. In between the layers of `causal` are packed and unpacked."""
    if is_llama(causal):
        yield LlamaDecoder(causal, pack_rows)
    if pack_rows is not None:
        replaced = pack_linears(causal, pack_rows)
        yield ModuleDecoder(causal)
        yield OwnCacheDecoder(causal)
        unpack_linears(replaced)
    yield ModuleDecoder(causal)
    yield OwnCacheDecoder(causal)
