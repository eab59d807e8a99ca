"""Quantized models: which weights are packed, what identifies them, and what may be done with them.

A weight is packed if its numbers are not the values that the model multiplies with: bitsandbytes' 4-bit and 8-bit
parameters, the integer tensors of GPTQ, AWQ and BitNet, and tensor subclasses such as those of torchao and quanto.
Packed weights are never cast: their dtype is a storage format, and a cast would break or destroy them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from transformers import BitsAndBytesConfig
from transformers.quantizers.auto import AutoQuantizationConfig
from transformers.utils import is_bitsandbytes_available
from transformers.utils.quantization_config import QuantizationConfigMixin

from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.models.adapters import base_state, causal_model, evaluating

LoadIn = Literal["4bit", "8bit"]

# Beside an adapter: how its base was quantized while loading, in transformers' own format. PEFT does not save it.
BASE_QUANTIZATION = "base_quantization.json"


def is_quantized(model: nn.Module) -> bool:
    """Whether transformers says so, or a parameter is packed (by torchao's `quantize_`, for example)."""
    causal = causal_model(model)
    return bool(getattr(causal, "is_quantized", False)) or any(is_packed(p) for p in causal.parameters())


def is_packed(weight: Tensor) -> bool:
    """Whether the tensor stores a quantized weight. Not so for DTensor, whose shards hold the values themselves."""
    if isinstance(weight, DTensor):
        return False
    # bitsandbytes can store 4-bit values in tensors of a floating-point dtype (bnb_4bit_quant_storage).
    integer = not (weight.is_floating_point() or weight.is_complex())
    return integer or hasattr(weight, "quant_state") or is_traceable_wrapper_subclass(weight)


def describe(model: nn.Module) -> str | None:
    """The quantization in a few words, such as `bitsandbytes 4-bit (nf4)`; None for a model that is not quantized."""
    if not is_quantized(model):
        return None
    config = getattr(causal_model(model).config, "quantization_config", None)
    if config is None:
        packed = next(p for p in causal_model(model).parameters() if is_packed(p))
        return f"{type(packed).__name__} weights"
    settings: Mapping[str, object] = config if isinstance(config, dict) else config.to_dict()
    method = str(getattr(settings["quant_method"], "value", settings["quant_method"]))
    if settings.get("load_in_4bit"):
        return f"{method} 4-bit ({settings['bnb_4bit_quant_type']})"
    if settings.get("load_in_8bit"):
        return f"{method} 8-bit"
    bits = settings.get("bits")
    return f"{method} {bits}-bit" if bits else method


def stored_bytes(model: nn.Module) -> int:
    """Bytes of the model's weights as they are stored, shared ones once."""
    weights = {id(p): (p, module) for module in model.modules() for p in module.parameters(recurse=False)}
    parts = [part for weight, module in weights.values() for part in stored_tensors(weight, module).values()]
    return sum(t.numel() * t.element_size() for t in (*parts, *dict(packed_buffers(model)).values()))


def stored_tensors(weight: Tensor, module: nn.Module | None) -> dict[str, Tensor]:
    """What a weight consists of on disk, by name: itself, or the numbers and scales of a packed weight.

    It is the same before and after a forward pass, which makes bitsandbytes move or repack its tensors.
    """
    if (state := getattr(weight, "quant_state", None)) is not None:
        codes, absmax = _four_bit(weight, state)
        return {"": codes.reshape(-1).view(torch.uint8), ".absmax": absmax, ".code": state.code}
    scale = getattr(weight, "SCB", None)
    if scale is None and (lent := getattr(module, "state", None)) is not None:
        scale = getattr(lent, "SCB", None)
    if scale is not None:
        return {"": weight.data, ".SCB": scale}
    if is_packed(weight) and is_traceable_wrapper_subclass(weight):
        names, _ = weight.__tensor_flatten__()
        parts = {f".{name}": stored_tensors(getattr(weight, name), None) for name in names}
        return {outer + inner: tensor for outer, part in parts.items() for inner, tensor in part.items()}
    return {"": weight}


def packed_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Buffers that hold a quantized layer's weight, as in GPTQ and AWQ, with their names in the base."""
    if not is_quantized(model):
        return
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in base_state(model):
        if not isinstance(tensor, nn.Parameter):
            layers.setdefault(name.rpartition(".")[0], {})[name] = tensor
    for buffers in layers.values():
        if any(not b.is_floating_point() and b.dtype != torch.bool and b.ndim > 1 for b in buffers.values()):
            yield from buffers.items()


def _four_bit(weight: Tensor, state: Any) -> tuple[Tensor, Tensor]:
    """The codes of a bitsandbytes 4-bit weight in their order on disk, and the scale of each block in bfloat16."""
    functional: Any = import_module("bitsandbytes.functional")
    if getattr(state, "packing_format_for_cpu", False):
        # The inverse in bitsandbytes 0.50 restores the codes, but leaves the scales transposed.
        codes, _ = functional._convert_weight_packed_for_cpu_inverse(weight.data, copy.copy(state))
        return codes, state.absmax.T.reshape(-1)
    absmax = state.absmax
    if state.nested:
        absmax = functional.dequantize_blockwise(absmax, state.state2) + state.offset
    return weight.data, absmax.to(torch.bfloat16)


@torch.no_grad()
def settle(model: nn.Module) -> None:
    """Bring quantized weights into the form that they keep: the first forward pass of some libraries changes them.

    bitsandbytes repacks 4-bit weights for inference on a CPU with bfloat16 instructions, in the first forward pass in
    evaluation mode. No gradient passes through repacked weights, so training afterwards would be wrong without an
    error: it is prevented, and undone where it happened. compressed-tensors unpacks its weights in that pass: done now.
    """
    causal, repacked = causal_model(model), False
    if (describe(causal) or "").startswith("compressed-tensors"):
        with evaluating(model):
            causal(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=causal.device), use_cache=False)
    for module in model.modules():
        if not hasattr(module, "support_avx512bf16_for_cpu"):
            continue
        layer: Any = module
        layer.support_avx512bf16_for_cpu = False
        weight: Any = layer.weight
        state = weight.quant_state
        if getattr(state, "packing_format_for_cpu", False):
            repacked = True
            codes, absmax = _four_bit(weight, state)
            weight.data, state.absmax, state.nested = codes, absmax.float(), False
            state.dtype, state.packing_format_for_cpu = state.original_dtype, False
    if repacked:
        logger.warning(
            "a forward pass before training repacked the 4-bit weights, which rounded their scales to bfloat16: load"
            " the model again for the exact ones"
        )


def depends_on_batch(model: nn.Module) -> bool:
    """Whether a row's predictions depend on the rows beside it.

    LLM.int8() computes those columns of an activation in 16 bits in which any row of the batch has an outlier.
    """
    return any(getattr(getattr(module, "state", None), "threshold", 0.0) for module in causal_model(model).modules())


def check_storable(model: nn.Module) -> None:
    """Raise `ConfigError` if a row's predictions depend on the rows beside it, so that no pool can store them."""
    if depends_on_batch(model):
        raise ConfigError(
            "the predictions of an 8-bit model of bitsandbytes depend on the other rows of the batch (LLM.int8()'s"
            " outlier columns), so stored predictions differ from those in training",
            "store tokens only (--predictions none) and use the adapter or the live teacher, or quantize to 4 bits, or"
            " with llm_int8_threshold=0",
        )


def quantized_layers(model: nn.Module) -> list[str]:
    """The last names of layers whose weight is a buffer, as in GPTQ and AWQ: PEFT's `all-linear` does not see them."""
    return sorted({name.split(".")[-2] for name, _ in packed_buffers(model)})


def cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The model in `dtype`, changed in place; a quantized model stays as it is, and runs under autocast instead."""
    return model if is_quantized(model) else model.to(dtype)


def check_trainable(model: nn.Module, *, adapter: bool) -> None:
    """Raise `ConfigError` for training that a quantized model does not support."""
    if (kind := describe(model)) is None:
        return
    if not adapter:
        raise ConfigError(
            f"the model is quantized ({kind}): its weights are rounded to a few values, so they cannot be trained",
            "train an adapter on it (--lora 16), or name the unquantized model",
        )
    quantizer = getattr(causal_model(model), "hf_quantizer", None)
    if quantizer is not None and not quantizer.is_trainable:
        raise ConfigError(
            f"transformers cannot train an adapter on weights quantized with {kind}",
            "name the unquantized model, and add --load-in-4bit if memory is short",
        )


def has_packed_head(model: nn.Module) -> bool:
    """Whether the output layer is quantized, so that only the model itself can compute its logits."""
    return _is_packed_layer(causal_model(model).get_output_embeddings())


def _is_packed_layer(layer: nn.Module | None) -> bool:
    weight = getattr(layer, "weight", None)
    return layer is not None and (not isinstance(weight, Tensor) or is_packed(weight))


def check_output_layer(layer: nn.Module) -> None:
    """Raise `ConfigError` if the output layer is quantized: the replay term multiplies with its weight itself."""
    if _is_packed_layer(layer):
        raise ConfigError(
            f"the output layer is quantized ({type(layer).__name__}), and the KL needs its weight unrounded",
            "quantize the model without its head: name it in llm_int8_skip_modules or modules_to_not_convert",
        )


def load_in(four: bool, eight: bool) -> LoadIn | None:
    """The setting from its two flags. Raises `ConfigError` if both are set."""
    if four and eight:
        raise ConfigError("load_in_4bit and load_in_8bit are both set", "set one of them")
    return "4bit" if four else "8bit" if eight else None


def loading_quantization(model: nn.Module) -> Mapping[str, object] | None:
    """How the model was quantized while it was loaded; None for a checkpoint that was quantized or is not."""
    causal = causal_model(model)
    quantizer = getattr(causal, "hf_quantizer", None)
    if quantizer is None or quantizer.pre_quantized:
        return None
    settings: Mapping[str, object] = causal.config.quantization_config.to_dict()
    return settings


def quantized_with(config: Any) -> str | None:
    """The method of a checkpoint, by its configuration; None if it is not quantized."""
    method = (getattr(config, "quantization_config", None) or {}).get("quant_method")
    return None if method is None else str(method)


class LoadingArguments(TypedDict, total=False):
    """Of `from_pretrained`."""

    quantization_config: QuantizationConfigMixin


def loading_arguments(source: str, config: Any, wanted: QuantizationConfigMixin | None) -> LoadingArguments:
    """Arguments for `from_pretrained`: the quantization that is wanted, or for GPTQ and AWQ a kernel with gradients.

    Raises `ConfigError` if a quantization is wanted of a checkpoint that has one.
    """
    method = quantized_with(config)
    if wanted is not None:
        if method is not None:
            raise ConfigError(f"{source} is quantized already ({method})", "load it as it is, without --load-in-...")
        return {"quantization_config": wanted}
    if method in ("gptq", "awq"):
        trainable = {**config.quantization_config, "backend": "auto_trainable"}
        return {"quantization_config": AutoQuantizationConfig.from_dict(trainable)}
    return {}


def quantization_config(bits: LoadIn, dtype: torch.dtype) -> BitsAndBytesConfig:
    """How QLoRA quantizes a base (Dettmers et al. 2023, arXiv 2305.14314): NF4 with double quantization; or LLM.int8().

    `dtype` is that of the products. Raises `ConfigError` if bitsandbytes is not installed.
    """
    if not is_bitsandbytes_available():
        raise ConfigError(
            f"--load-in-{bits} needs bitsandbytes, which is not installed", "pip install keeptune[quantized]"
        )
    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
