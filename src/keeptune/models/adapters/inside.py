"""The model inside an adapter: its base's own parameters, the adapter disabled, PEFT's own forward pass.

What belongs to the base is asked of PEFT's classes, never read out of names: a later PEFT may name its parts otherwise.

Shapes: B rows, T positions, D width, V vocabulary.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from keeptune.models.adapters.classes import peft_classes

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

PROBE_TOKENS = 16
_NOISE = 0.05
# Values of LoraConfig.init_lora_weights that subtract something from the base's weights, or replace them.
_MOVING = ("pissa", "olora", "corda", "loftq", "lora_ga")
# Of these, PEFT does the same again when it loads a saved adapter; the others depend on chance or on data.
_REPEATABLE = ("pissa", "olora")


def causal_model(model: nn.Module) -> Any:
    """The Hugging Face causal model inside `model`, which may be a PEFT model around it."""
    if hasattr(model, "get_base_model"):
        return model.get_base_model()  # type: ignore[operator]
    return model.base_model.model if _is_peft_model(model) else model  # type: ignore[union-attr]


def has_adapter(model: nn.Module) -> bool:
    """Whether `model` is a PEFT model, or has PEFT's layers in it: its adapter can be disabled."""
    return _is_peft_model(model) or any(_wrapped(module) is not None for module in model.modules())


def _is_peft_model(model: nn.Module) -> bool:
    return hasattr(model, "disable_adapter")  # PeftModel and PeftMixedModel


def _wrapped(module: nn.Module) -> nn.Module | None:
    """The base's module that a module of PEFT wraps; None for the base's own modules."""
    peft, inner = peft_classes(), None
    if peft is not None and isinstance(module, peft.layer):
        inner = module.get_base_layer()
    elif peft is not None and isinstance(module, peft.wrapper):
        inner = module.original_module
    elif peft is not None and isinstance(module, peft.attention):
        inner = module.model
    return inner


def tuner_layers(model: nn.Module) -> list[Any]:
    """PEFT's layers around layers of the base."""
    peft = peft_classes()
    return [] if peft is None else [module for module in model.modules() if isinstance(module, peft.layer)]


def base_parameters(model: nn.Module) -> list[tuple[str, Tensor]]:
    """The base's own parameters, with the names that they have without an adapter."""
    return [(name, tensor) for name, tensor in base_state(model) if isinstance(tensor, nn.Parameter)]


def base_state(model: nn.Module) -> list[tuple[str, Tensor]]:
    """The base's own parameters and saved buffers, each once, with the names that they have without an adapter."""
    return list(_own_state(causal_model(model), "", set()))


def _own_state(module: nn.Module, prefix: str, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    if (inner := _wrapped(module)) is not None:
        yield from _own_state(inner, prefix, seen)
        return
    saved = {name: buffer for name, buffer in module._buffers.items() if name not in module._non_persistent_buffers_set}
    for name, tensor in {**module._parameters, **saved}.items():
        if tensor is not None and id(tensor) not in seen:
            seen.add(id(tensor))
            yield prefix + name, tensor
    for name, child in module._modules.items():
        if child is not None:
            yield from _own_state(child, f"{prefix}{name}.", seen)


def trainable_base_parameter(model: nn.Module) -> str | None:
    """Name of a trainable parameter of the base itself; None if only the adapter is trained."""
    return next((name for name, parameter in base_parameters(model) if parameter.requires_grad), None)


@contextlib.contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """Disable the model's adapter, if it has one, for the block. What is trainable stays so."""
    if not has_adapter(model):
        yield
        return
    # PEFT makes frozen adapters trainable when it enables them again.
    trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with model.disable_adapter() if _is_peft_model(model) else _layers_off(model):  # type: ignore[operator]
            yield
    finally:
        for parameter, requires_grad in trainable:
            if parameter.requires_grad != requires_grad:
                parameter.requires_grad_(requires_grad)


@contextlib.contextmanager
def _layers_off(model: nn.Module) -> Iterator[None]:
    """Disable PEFT's layers in a model that transformers' `add_adapter` put them into."""
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "enable_adapters")]
    layers = [layer for layer in layers if _wrapped(layer) is not None]
    enabled = [layer for layer in layers if not layer.disable_adapters]
    for layer in enabled:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in enabled:
            layer.enable_adapters(True)


def without_adapter(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Decorator: run a function of a model (its first argument) with the model's adapter disabled."""

    @functools.wraps(function)
    def wrapper(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        model: Any = args[0] if args else kwargs["model"]
        with adapter_off(model):
            return function(*args, **kwargs)

    return wrapper


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode for the block."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def active_configs(model: Any) -> list[Any]:
    """The configurations of the active adapters; none without an adapter."""
    configs = getattr(model, "peft_config", None)
    if not configs:
        return []
    active = model.active_adapters  # a method where transformers put the adapter into the model
    names = active() if callable(active) else active
    return [configs[name] for name in ([names] if isinstance(names, str) else names) if name in configs]


def describe_adapters(model: nn.Module) -> str:
    """The types of the active adapters, in PEFT's words, such as `LORA`."""
    return " and ".join(dict.fromkeys(_type_of(config) for config in active_configs(model))) or "PEFT"


def _type_of(config: Any) -> str:
    return str(getattr(config.peft_type, "value", config.peft_type))


def moving_initialization(config: Any) -> str | None:
    """How a PEFT configuration's initialization changes the base, in words; None if it leaves the base alone."""
    initialization = getattr(config, "init_lora_weights", None)
    if isinstance(initialization, str) and initialization.lower().startswith(_MOVING):
        return f"init_lora_weights={initialization!r} moves weights of the base into the adapter"
    if getattr(config, "kasa_config", None) is not None:
        return "kasa_config takes part of the base's weights away"
    if replicated := getattr(config, "layer_replication", None):
        return f"layer_replication={replicated} replicates layers of the base"
    return None


def moved_base(model: nn.Module) -> str | None:
    """`moving_initialization` of the model's active adapters."""
    return next(filter(None, map(moving_initialization, active_configs(model))), None)


def unrepeatable(config: Any) -> str | None:
    """The initialization that moves weights of the base, and moves others when the saved adapter is loaded."""
    initialization = getattr(config, "init_lora_weights", None)
    moving = isinstance(initialization, str) and initialization.lower().startswith(_MOVING)
    return f"init_lora_weights={initialization!r}" if moving and initialization not in _REPEATABLE else None


def output_weight(layer: Any) -> Tensor:
    """The weight of an output layer: of a layer whose rows PEFT trains, with these rows in their places."""
    peft = peft_classes()
    if (
        peft is not None
        and isinstance(layer, peft.token_layer)
        and layer.active_adapters
        and not layer.disable_adapters
    ):
        merged: Tensor = layer.get_merged_weights(layer.active_adapters)
        return merged
    weight: Tensor = layer.weight
    return weight


def own_forward(model: nn.Module) -> bool:
    """Whether the model's predictions need PEFT's own forward pass, around that of the model inside.

    Prompt learning puts virtual tokens before a row, aLoRA finds its invocation tokens in it, and X-LoRA, Poly and
    others have a forward of their own.
    """
    peft = peft_classes()
    if peft is None or not isinstance(model, peft.model):
        return False
    around = any(c.is_prompt_learning or getattr(c, "alora_invocation_tokens", None) for c in active_configs(model))
    return around or type(model.base_model).forward is not peft.tuner.forward


def peft_states(model: nn.Module, input_BT: Tensor, position_BT: Tensor | None, by_decoder: bool) -> Tensor:
    """The states that enter the output layer in PEFT's own forward pass, at the row's own tokens: [B, T, D].

    `by_decoder`: see `keeptune.models.anatomy.Anatomy`.
    """
    causal, states, given = causal_model(model), [], {"input_ids": input_BT, "use_cache": False}
    if position_BT is not None:
        given["position_ids"] = position_BT
    if by_decoder:
        handle = causal.get_decoder().register_forward_hook(lambda m, args, out: states.append(out.last_hidden_state))
        if "logits_to_keep" in inspect.signature(causal.forward).parameters:
            given["logits_to_keep"] = 1  # nothing reads the logits
    else:
        head = causal.get_output_embeddings()
        handle = head.register_forward_pre_hook(lambda m, args: states.append(args[0]))
    try:
        with contextlib.nullcontext() if torch.is_grad_enabled() else _same_prompts(model):
            model(**given)
    finally:
        handle.remove()
    # X-LoRA passes twice: the last pass has the weights. Virtual tokens come first.
    last: Tensor = states[-1][:, -input_BT.shape[1] :]
    return last


@contextlib.contextmanager
def _same_prompts(model: Any) -> Iterator[None]:
    """Leave the virtual tokens as they are: CPT projects them in every forward pass, and a reading must not."""
    encoder = getattr(model, "prompt_encoder", None)
    kept = [] if encoder is None else [(p, p.detach().clone()) for p in encoder.parameters()]
    try:
        yield
    finally:
        for parameter, value in kept:
            parameter.data.copy_(value)


@torch.no_grad()
def next_token_logits(model: nn.Module, tokens: int = PROBE_TOKENS) -> Tensor:
    """The logits of PEFT's own forward pass (or the model's) on a row of the first ids, in fp32: [T, V]."""
    weight = causal_model(model).get_input_embeddings().weight
    input_BT = torch.arange(tokens, device=weight.device).remainder(len(weight))[None]
    with evaluating(model), _same_prompts(model):
        logits_BTV: Tensor = model(input_ids=input_BT, use_cache=False).logits
    return logits_BTV[0, -tokens:].float().cpu()


@contextlib.contextmanager
def perturbed_adapter(model: nn.Module) -> Iterator[None]:
    """Move the adapter's trainable parameters by noise for the block, as training would; the same bits after it."""
    base = {id(parameter) for _, parameter in base_parameters(model)}
    trained = [p for p in model.parameters() if p.requires_grad and id(p) not in base and p.is_floating_point()]
    kept = [parameter.detach().clone() for parameter in trained]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        try:
            for parameter in trained:
                parameter.add_(_NOISE * torch.randn(parameter.shape, generator=generator).to(parameter))
            yield
        finally:
            for parameter, value in zip(trained, kept, strict=True):
                parameter.copy_(value)


def remove_idle_adapter(causal: Any, probe_BP: Tensor) -> None:
    """Remove a PEFT adapter's layers if they change no logit by a bit, as before training; else keep all of them."""
    # Top layers only: PEFT nests them, and what a wrapper holds is its own.
    parents = [module for module in causal.modules() if _wrapped(module) is None]
    layers = {id(layer) for layer in tuner_layers(causal)}
    adapted = [(p, name, child) for p in parents for name, child in p.named_children() if id(child) in layers]
    if not adapted:
        return
    with torch.no_grad():
        before = causal(input_ids=probe_BP, use_cache=False).logits
        for parent, name, child in adapted:
            setattr(parent, name, child.get_base_layer())
        if torch.equal(causal(input_ids=probe_BP, use_cache=False).logits, before):
            return
    for parent, name, child in adapted:
        setattr(parent, name, child)
