"""A forward pass without the noise of training: dropout, NEFTune, router jitter, layers skipped at random."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import CheckpointWrapper
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def without_noise(model: nn.Module) -> Iterator[None]:
    """Run the block as in evaluation mode, with gradients and with gradient checkpointing where it is enabled.

    Evaluation mode alone would disable checkpointing, which layers apply only while they train, and the backward pass
    computes checkpointed layers again after the block, when they train with noise. So these layers keep their flag, and
    what they compute runs in evaluation mode, both times.
    """
    with ExitStack() as stack:
        for module, name in _checkpoints(model):
            stack.callback(setattr, module, name, checkpoint := getattr(module, name))
            setattr(module, name, _evaluated(module, checkpoint))
        stack.enter_context(_flags(model, keep={module for module, _ in _checkpoints(model)}))
        yield


def _checkpoints(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """The modules that checkpoint what they compute, with the name of the function that does it."""
    found: list[tuple[nn.Module, str]] = []
    for module in model.modules():
        if isinstance(module, CheckpointWrapper):
            found.append((module, "checkpoint_fn"))
        elif getattr(module, "gradient_checkpointing", False) and hasattr(module, "_gradient_checkpointing_func"):
            # A model checkpoints its layers by itself only where they do not.
            inner = (layer for layer in module.modules() if layer is not module)
            if not any(isinstance(layer, GradientCheckpointingLayer) for layer in inner):
                found.append((module, "_gradient_checkpointing_func"))
    return found


def _evaluated(module: nn.Module, checkpoint: Callable[..., Any]) -> Callable[..., Any]:
    """`checkpoint`, which computes its function with `module` in evaluation mode each time."""

    def checkpoint_evaluated(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def evaluated(*args: Any, **kwargs: Any) -> Any:
            with _flags(module):
                return function(*args, **kwargs)

        return checkpoint(evaluated, *args, **kwargs)

    return checkpoint_evaluated


@contextmanager
def _flags(model: nn.Module, keep: set[nn.Module] | None = None) -> Iterator[None]:
    """Evaluation mode for the block, but for the modules in `keep`; each module's own flag returns after it."""
    training = [module for module in model.modules() if module.training and module not in (keep or ())]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
