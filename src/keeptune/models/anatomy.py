"""How a causal model comes to its logits, found by trying it: what enters its output layer and what follows it.

logits = cap · tanh(scale · (W h + b) / cap). Families differ in what stands between the decoder and the output layer,
and in what they call the scale and the cap. So a model is asked once, on a few tokens, whatever its family.

Shapes: B rows, T positions, D width, V vocabulary.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial

from keeptune.errors import ConfigError
from keeptune.models.adapters import evaluating, output_weight
from keeptune.models.quantized import check_output_layer, has_packed_head
from keeptune.models.sharded import reshard
from keeptune.models.vocabulary import outputs_of
from keeptune.objective import Head

_TOKENS = 8
_TOLERANCE = 1e-3
# Such models compute the scale and the cap in 16 bits too, where `Head` has fp32.
_TOLERANCE_16_BIT = 0.02
# Chosen outputs of the output layer: far below every cap, where tanh is linear, and far above every cap.
_SMALL, _LARGE = 2.0**-10, 2.0**20
_ROUNDING = 0.01
_CONTAINERS = (nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Anatomy:
    """How one model comes to its logits."""

    by_decoder: bool
    """Whether `get_decoder()` gives the states that enter the output layer; else they are caught on their way."""
    scale: float
    softcap: float | None
    idle: tuple[str, ...]
    """Modules with parameters that text does not run through, such as a vision tower: the outermost, by name."""


_KNOWN: WeakKeyDictionary[nn.Module, Anatomy] = WeakKeyDictionary()


def anatomy_of(causal: Any) -> Anatomy:
    """The anatomy of a causal model, found at the first call.

    Raises:
        ConfigError: no language-model head, an encoder-decoder, predictions that see later tokens, or logits that
            cannot be rebuilt from what enters the output layer.
    """
    found = _KNOWN.get(causal)
    if found is None:
        found = _KNOWN[causal] = _examine(causal)
        reshard(causal)
    return found


def idle_modules(causal: Any) -> tuple[str, ...]:
    """`Anatomy.idle`, also of a model whose output layer is quantized, which has no anatomy."""
    if not has_packed_head(causal):
        return anatomy_of(causal).idle
    row_T = torch.arange(_TOKENS, device=next(causal.parameters()).device).remainder(outputs_of(causal))
    with torch.no_grad(), evaluating(causal), _calls(causal) as called:
        causal(input_ids=row_T[None], use_cache=False)
    return tuple(_idle(causal, called))


def entering_head(causal: Any, input_BT: Tensor, position_BT: Tensor | None, by_decoder: bool) -> Tensor:
    """The states that enter the output layer, [B, T, D]."""
    given = {"input_ids": input_BT, "use_cache": False}
    if position_BT is not None:
        given["position_ids"] = position_BT
    if by_decoder:
        return causal.get_decoder()(**given).last_hidden_state
    caught: list[Tensor] = []

    def catch(hidden_BTD: Tensor) -> Tensor:
        caught.append(hidden_BTD)
        return hidden_BTD[..., :1]

    with _output_layer(causal, catch):
        # Past what trainers put around the model's forward, as a call of the decoder is.
        type(causal).forward(causal, **given)
    if len(caught) != 1:
        raise ConfigError(
            f"{type(causal).__name__} calls its output layer {len(caught)} times in a forward pass",
            "this architecture is not supported; please report the model's name",
        )
    return caught[0]


def output_head(causal: Any, scale: float, softcap: float | None) -> Head:
    """The output layer with its own parameters, gathered if FSDP shards them."""
    layer = causal.get_output_embeddings()
    bias = getattr(layer, "bias", None)
    weight_VD, bias_V = _whole(output_weight(layer)), None if bias is None else _whole(bias)
    return Head(weight_VD=weight_VD, bias_V=bias_V, scale=scale, softcap=softcap)


def _whole(parameter: Tensor) -> Tensor:
    """The parameter, gathered from its shards. Gradients return to the shards averaged, as FSDP's own do."""
    if not isinstance(parameter, DTensor):
        return parameter
    mesh = parameter.device_mesh
    whole: Tensor = parameter.full_tensor(grad_placements=[Partial()] * mesh.ndim)
    if whole.requires_grad:
        whole.register_hook(lambda gradient: gradient / mesh.size())
    return whole


@torch.no_grad()
def _examine(causal: Any) -> Anatomy:
    name = type(causal).__name__
    head = causal.get_output_embeddings()
    if head is None:
        raise ConfigError(
            f"{name} has no language-model head, so there are no next-token predictions to keep",
            "use a causal language model",
        )
    if causal.config.is_encoder_decoder:
        raise ConfigError(
            f"{name} is an encoder-decoder; keeptune keeps the predictions of decoder-only models",
            "use a causal language model",
        )
    check_output_layer(head)
    keep_weights(causal)
    row_T = torch.arange(_TOKENS, device=head.weight.device).remainder(len(head.weight))
    input_BT = torch.stack([row_T, row_T])
    input_BT[1, -1] = (_TOKENS + 1) % len(head.weight)
    with evaluating(causal), torch.autocast(head.weight.device.type, enabled=False):
        with _calls(causal) as called:
            own_BTV = causal(input_ids=input_BT, use_cache=False).logits.float()
        computed = _arithmetic(own_BTV, head.weight.dtype)
        tolerance = _TOLERANCE_16_BIT if computed.itemsize <= 2 else _TOLERANCE
        if _differ(own_BTV[0, :-1], own_BTV[1, :-1], tolerance):
            raise ConfigError(
                f"the predictions of {name} at a position change with the tokens after it, so it is no causal language"
                " model as it is configured",
                "use a causal language model; some encoders are one with is_decoder=true in their config.json",
            )
        for by_decoder, scale, softcap in _candidates(causal, input_BT):
            with torch.autocast(head.weight.device.type, computed, enabled=computed != head.weight.dtype):
                logits_BTV = _rebuilt(causal, input_BT, by_decoder, scale, softcap)
            if logits_BTV is not None and not _differ(own_BTV, logits_BTV, tolerance):
                return Anatomy(by_decoder, scale, softcap, tuple(_idle(causal, called)))
    raise ConfigError(
        f"the logits of {name} cannot be rebuilt from its hidden states and head",
        "this architecture is not supported yet; please report the model's name",
    )


def keep_weights(causal: Any) -> None:
    """Keep RWKV from scaling its weights in place, there and back, whenever it changes between training and evaluation.

    It computes the same without, but for overflow in fp16. With it a reading of drift would leave scaled weights to be
    saved, and gradients of a step with passes in both modes could not be computed.
    """
    for module in causal.modules():
        if hasattr(module, "layers_are_rescaled"):
            if module.layers_are_rescaled:
                was_training, module.training = module.training, True
                module._rescale_layers()
                module.training = was_training
            module._rescale_layers = _nothing


def _nothing() -> None:
    pass


def _candidates(causal: Any, input_BT: Tensor) -> Iterator[tuple[bool, float, float | None]]:
    """(by the decoder, scale, soft cap): as the configuration says, unless the model does something else."""
    config = causal.config.get_text_config()
    scale = 1.0 / float(getattr(config, "logits_scaling", None) or 1.0)
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        scale *= float(getattr(config, name, None) or 1.0)
    named = scale, getattr(config, "final_logit_softcapping", None)
    measured = _measured(causal, input_BT)
    # A configuration has all digits, which a 16-bit model has not.
    agree = all(math.isclose(a or 0.0, b or 0.0, rel_tol=_ROUNDING) for a, b in zip(named, measured, strict=True))
    yield True, *(named if agree else measured)
    yield True, *named  # MiniCPM3 scales between its decoder and the output layer
    yield False, *measured


def _measured(causal: Any, input_BT: Tensor) -> tuple[float, float | None]:
    """Scale and soft cap, read off what the model makes of chosen outputs of its output layer."""

    def after(value: float) -> float:
        def choose(hidden_BTD: Tensor) -> Tensor:
            return hidden_BTD.new_full((*hidden_BTD.shape[:-1], vocabulary), value, dtype=torch.float32)

        with _output_layer(causal, choose):
            return float(causal(input_ids=input_BT, use_cache=False).logits[0, -1, 0])

    vocabulary = len(causal.get_output_embeddings().weight)
    scale, largest = after(_SMALL) / _SMALL, after(_LARGE)
    return scale, (largest if largest < 0.5 * scale * _LARGE else None)


def _rebuilt(causal: Any, input_BT: Tensor, by_decoder: bool, scale: float, softcap: float | None) -> Tensor | None:
    """The logits that follow if this is the model's anatomy, fp32; None where its decoder cannot be asked."""
    try:
        hidden_BTD = entering_head(causal, input_BT, None, by_decoder)
        return output_head(causal, scale, softcap).logits(hidden_BTD).float()
    except (AttributeError, RuntimeError, TypeError, ValueError):
        # What `get_decoder` gives may be the model itself, or may want other inputs.
        return None


def _arithmetic(logits: Tensor, weights: torch.dtype) -> torch.dtype:
    """What the model computes in: the dtype of its weights, or fewer bits where a host switches autocast on in it."""
    fewer = (dtype for dtype in (torch.bfloat16, torch.float16) if torch.equal(logits, logits.to(dtype).float()))
    return weights if weights.itemsize <= 2 else next(fewer, weights)


def _differ(own: Tensor, other: Tensor, tolerance: float) -> bool:
    if own.shape != other.shape:
        return True
    return bool((own - other).abs().max() > tolerance * own.abs().max().clamp(min=1.0))


@contextlib.contextmanager
def _output_layer(causal: Any, stand_in: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a function stand in for the output layer while the block runs, whatever happens in it."""
    head = causal.get_output_embeddings()
    own = head.__dict__.get("forward")
    head.forward = stand_in
    try:
        yield
    finally:
        del head.forward
        if own is not None:
            head.forward = own


@contextlib.contextmanager
def _calls(causal: nn.Module) -> Iterator[set[nn.Module]]:
    """The modules that are called while the block runs."""
    called: set[nn.Module] = set()
    handles = [m.register_forward_pre_hook(lambda module, inputs: called.add(module)) for m in causal.modules()]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()


def _idle(module: nn.Module, called: set[nn.Module], prefix: str = "") -> Iterator[str]:
    """Names of the outermost modules with parameters that were not called, nor anything in them."""
    children = list(module.named_children())
    alive = {name for name, child in children if any(part in called for part in child.modules())}
    for name, child in children:
        if name in alive:
            yield from _idle(child, called, f"{prefix}{name}.")
        # In a list of which some are called the others are experts, which other tokens choose.
        elif next(child.parameters(), None) is not None and not (alive and isinstance(module, _CONTAINERS)):
            yield prefix + name
