"""All knowledge of PEFT: the model inside an adapter, the base's own parameters, the disabled adapter."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

# A PEFT wrapper keeps the layer or module that it replaces under these names.
_WRAPPED = (".base_layer.", ".original_module.")
_CHECK_TOKENS = 16
_CHECK_TOLERANCE = 1e-4


def causal_model(model: nn.Module) -> Any:
    """The Hugging Face causal model inside `model`, which may be a PEFT model around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]


def has_adapter(model: nn.Module) -> bool:
    """Whether `model` is a PEFT model, whose adapter can be disabled."""
    return hasattr(model, "disable_adapter")


def base_parameters(model: nn.Module) -> list[tuple[str, Tensor]]:
    """The base's own parameters, with the names that they have without an adapter."""
    prefixes = {getattr(type(module), "prefix", "") for module in model.modules() if hasattr(module, "peft_config")}
    adapter_marks = (*filter(None, prefixes), "modules_to_save")
    named = []
    for name, tensor in causal_model(model).named_parameters():
        if hasattr(model, "peft_config") and any(mark in name for mark in adapter_marks):
            continue
        for wrapper in _WRAPPED:
            name = name.replace(wrapper, ".")
        named.append((name, tensor))
    return named


@contextlib.contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """Disable the model's adapter, if it has one, for the block."""
    with model.disable_adapter() if has_adapter(model) else contextlib.nullcontext():  # type: ignore[operator]
        yield


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode for the block."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def adapter_mismatch(model: nn.Module) -> str | None:
    """Why disabling the fresh adapter of `model` does not recover the base; None if it does, or without an adapter.

    Initializations such as PiSSA, OLoRA and CorDA move part of the base's weights into the adapter.
    """
    if not has_adapter(model):
        return None
    weight = causal_model(model).get_output_embeddings().weight
    input_BT = torch.arange(_CHECK_TOKENS, device=weight.device).remainder(len(weight))[None]

    def final_states() -> Tensor:
        return causal_model(model).get_decoder()(input_ids=input_BT, use_cache=False).last_hidden_state.float()

    with evaluating(model), torch.no_grad():
        on = final_states()
        with adapter_off(model):
            off = final_states()
    if (on - off).abs().max() > _CHECK_TOLERANCE * off.abs().max():
        return (
            "disabling it changes the predictions before training (an initialization such as PiSSA or OLoRA, or an"
            " adapter that is already trained)"
        )
    return None


def trainable_base_parameter(model: nn.Module) -> str | None:
    """Name of a trainable parameter of the base itself; None if only the adapter is trained."""
    return next((name for name, parameter in base_parameters(model) if parameter.requires_grad), None)


def remove_idle_adapter(causal: Any, probe_BP: Tensor) -> None:
    """Remove a PEFT adapter's layers if they change no logit by a bit, as before training; else keep all of them."""
    parents = list(causal.modules())
    adapted = [(p, name, child) for p in parents for name, child in p.named_children() if hasattr(child, "base_layer")]
    if not adapted:
        return
    with torch.inference_mode():
        before = causal(input_ids=probe_BP, use_cache=False).logits
        for parent, name, child in adapted:
            setattr(parent, name, child.base_layer)
        if torch.equal(causal(input_ids=probe_BP, use_cache=False).logits, before):
            return
    for parent, name, child in adapted:
        setattr(parent, name, child)
