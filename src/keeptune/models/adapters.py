"""All knowledge of PEFT: the model inside an adapter, the base's own parameters, the adapter disabled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_CHECK_TOKENS = 16
_CHECK_TOLERANCE = 1e-4


def causal_model(model: nn.Module) -> Any:
    """The Hugging Face causal model inside `model`, which may be a PEFT model around it."""
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return inner


def base_parameters(model: nn.Module) -> list[tuple[str, Tensor]]:
    """The base's own parameters by their names without adapters around them."""
    causal = causal_model(model)
    prefixes = {getattr(type(module), "prefix", "") for module in model.modules() if hasattr(module, "peft_config")}
    adapter_marks = (*filter(None, prefixes), "modules_to_save")
    named = []
    for name, tensor in causal.named_parameters():
        if hasattr(model, "peft_config") and any(mark in name for mark in adapter_marks):
            continue
        named.append((name.replace(".base_layer.", ".").replace(".original_module.", "."), tensor))
    return named


@contextlib.contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """The model without its adapter, where it has one."""
    disable = getattr(model, "disable_adapter", None)
    with disable() if disable else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, and back."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def adapter_mismatch(model: nn.Module) -> str | None:
    """Why the model with its fresh adapter off is not the base; None where it is, and where there is no adapter.

    PiSSA, OLoRA, CorDA and their kind take part of the base's weights into the adapter when they are put on.
    """
    if not hasattr(model, "disable_adapter"):
        return None
    weight = causal_model(model).get_output_embeddings().weight
    input_BT = torch.arange(_CHECK_TOKENS, device=weight.device).remainder(len(weight))[None]
    with evaluating(model), torch.no_grad():
        on = _final_states(model, input_BT)
        with adapter_off(model):
            off = _final_states(model, input_BT)
    if (on - off).abs().max() > _CHECK_TOLERANCE * off.abs().max():
        return "switching its adapter off changes its predictions already now (PiSSA, OLoRA, or an adapter in use)"
    return None


def _final_states(model: nn.Module, input_BT: Tensor) -> Tensor:
    states: Tensor = causal_model(model).get_decoder()(input_ids=input_BT, use_cache=False).last_hidden_state
    return states.float()


def trainable_base_parameter(model: nn.Module) -> str | None:
    """Name of a parameter of the base itself that training will move; None where the adapter alone is trained."""
    return next((name for name, parameter in base_parameters(model) if parameter.requires_grad), None)


def remove_idle_adapter(causal: Any, probe_BP: Tensor) -> None:
    """Take a PEFT adapter's layers out where they change no logit by a bit, as before training; else leave all in."""
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
