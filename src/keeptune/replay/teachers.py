"""Teachers: where the base's predictions on replay rows come from during training.

A teacher is any object with the method of `Teacher`. `TEACHERS` holds those that are known by name:

| teacher | stored                        | cost                                                     |
|---------|-------------------------------|----------------------------------------------------------|
| hidden  | final hidden states, on disk  | D numbers per token; a copy of the head if it is trained |
| topk    | K most likely tokens, on disk | about 6·K bytes per token; blind within the tail          |
| adapter | nothing: adapter disabled     | a forward pass on the replay rows                        |
| live    | nothing: a frozen copy        | the model's memory again, and that forward pass          |

Shapes: B rows, P positions, T targets per row, N = B·T targets, D width, V vocabulary, K tokens of a prediction.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from keeptune.errors import ConfigError
from keeptune.models.adapters import adapter_off, causal_model, evaluating, has_adapter, trainable_base_parameter
from keeptune.models.modeling import autocast, head_of, hidden_states
from keeptune.models.quantized import cast, check_storable, is_quantized, stored_bytes
from keeptune.models.sharded import without_grad
from keeptune.objective import Head, HiddenTarget, Target, TopKTarget, top_k
from keeptune.replay.batch import ReplayBatch
from keeptune.replay.manifest import Predictions
from keeptune.replay.pool import ReplayPool

_TEACHER_ROWS = 16


class Teacher(Protocol):
    """The base's predictions on replay rows."""

    def target(self, model: nn.Module, batch: ReplayBatch) -> Target:
        """The predictions of every target of the batch; `model` is the model in training, unwrapped.

        What opens a row is context: `ReplayBatch.at_targets` gives the states that predict the targets.
        """


@dataclass(frozen=True)
class CachedHidden:
    """The pool's hidden states under the base's head: exact."""

    head: Head

    def target(self, model: nn.Module, batch: ReplayBatch) -> Target:
        return HiddenTarget(hidden_ND=batch.hidden_BTD.flatten(0, 1), head=self.head)


class CachedTopK:
    """The pool's most likely tokens and the mass of the rest; see `TopKTarget` for what this loses."""

    def target(self, model: nn.Module, batch: ReplayBatch) -> Target:
        ids_NK, log_probs_NK1 = (batch.outputs[name].flatten(0, 1) for name in ("top_ids", "top_log_probs"))
        return TopKTarget(ids_NK=ids_NK, log_probs_NK1=log_probs_NK1)


@dataclass(frozen=True)
class AdapterOff:
    """The model in training with its adapter disabled: exact, because only the adapter is trained."""

    head: Head

    def target(self, model: nn.Module, batch: ReplayBatch) -> Target:
        with adapter_off(model), evaluating(model), torch.no_grad():
            hidden_BPD = hidden_states(model, batch.inputs_BP)
        return HiddenTarget(hidden_ND=batch.at_targets(hidden_BPD), head=self.head)


class LiveCopy:
    """A frozen copy of the base beside the model, in the dtype in which training multiplies: exact, twice the memory.

    If the model has an adapter, the copy disables it, unless `adapter_on` says that the base is the model with it. The
    copy of a quantized base is quantized too.
    """

    adapter_on = False

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self.copy = cast(copy.deepcopy(model), dtype).eval().requires_grad_(False)
        # A forward patched onto the instance (as trainers do) belongs to the original and would run the original.
        causal_model(self.copy).__dict__.pop("forward", None)

    def target(self, model: nn.Module, batch: ReplayBatch) -> Target:
        with nullcontext() if self.adapter_on else adapter_off(self.copy), torch.no_grad():
            hidden_BPD = hidden_states(self.copy, batch.inputs_BP)
        return HiddenTarget(hidden_ND=batch.at_targets(hidden_BPD), head=head_of(self.copy))


@dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """What a run offers a teacher, from which costs follow."""

    model: nn.Module  # in training
    dtype: torch.dtype  # in which training multiplies
    tokens: int  # of the pool
    top_k: int  # tokens that a topk pool stores of each prediction
    disk_free: int  # bytes on the pool's disk
    memory_free: int  # bytes on the training device
    adapter_mismatch: str | None  # why the model with its adapter disabled is not the base, now or after training


@dataclass(frozen=True, kw_only=True)
class NamedTeacher:
    """One teacher that is known by name."""

    description: str  # a few words, for the log
    make: Callable[[nn.Module, torch.dtype, Head | None], Teacher]
    """(model, dtype, the base's head if at hand) → the teacher. Called before training, when the model is the base."""
    predictions: Predictions = "none"  # what a pool stores for it
    forward_pass: bool = True  # whether it needs a forward pass of the base on replay rows
    disk_bytes: Callable[[TeacherOptions], int] = lambda options: 0  # of the stored predictions
    memory_bytes: Callable[[TeacherOptions], int] = lambda options: 0  # beside the model in training
    obstacle: Callable[[TeacherOptions], ConfigError | None] = lambda options: None
    """Why it cannot be used in this run; None if it can."""


def _head_copy_bytes(options: TeacherOptions) -> int:
    weight_VD = head_of(options.model).weight_VD
    return weight_VD.numel() * options.dtype.itemsize if weight_VD.requires_grad else 0


def _trainable(model: nn.Module) -> str | None:
    name = trainable_base_parameter(model)
    return name and f"parameter {name!r} of the base is trainable"


def _stored_obstacle(options: TeacherOptions) -> ConfigError | None:
    try:
        check_storable(options.model)
    except ConfigError as error:
        return error
    return None


def _copy_bytes(options: TeacherOptions) -> int:
    if is_quantized(options.model):
        return stored_bytes(options.model)
    return sum(p.numel() for p in causal_model(options.model).parameters()) * options.dtype.itemsize


def _adapter_obstacle(options: TeacherOptions) -> ConfigError | None:
    if not has_adapter(options.model):
        return ConfigError(
            "the adapter teacher needs an adapter, and this run trains all weights", "use hidden or live"
        )
    if why := options.adapter_mismatch or _trainable(options.model):
        return ConfigError(
            f"{why}, so disabling the adapter does not recover the base",
            "use the hidden or the live teacher, or freeze the base's parameters (such as with bias='none')",
        )
    return None


# In the order in which `auto` tries them.
TEACHERS: dict[str, NamedTeacher] = {
    "hidden": NamedTeacher(
        description="exact, without a second model",
        make=lambda model, dtype, head: CachedHidden(head or frozen_head(model, dtype)),
        predictions="hidden",
        forward_pass=False,
        disk_bytes=lambda options: options.tokens * head_of(options.model).weight_VD.shape[1] * options.dtype.itemsize,
        memory_bytes=_head_copy_bytes,
        obstacle=_stored_obstacle,
    ),
    "topk": NamedTeacher(
        description="the most likely tokens of each prediction, blind within the tail",
        make=lambda model, dtype, head: CachedTopK(),
        predictions="topk",
        forward_pass=False,
        disk_bytes=lambda options: options.tokens * (6 * options.top_k + 2),
        obstacle=_stored_obstacle,
    ),
    "adapter": NamedTeacher(
        description="exact, with nothing to store",
        make=lambda model, dtype, head: AdapterOff(head or frozen_head(model, dtype)),
        obstacle=_adapter_obstacle,
    ),
    "live": NamedTeacher(
        description="exact, a frozen copy of the base",
        make=lambda model, dtype, head: LiveCopy(model, dtype),
        memory_bytes=_copy_bytes,
    ),
}


def teacher_named(name: str) -> NamedTeacher:
    """The registered teacher of that name. Raises `ConfigError` if no teacher has it."""
    if name not in TEACHERS:
        raise ConfigError(f"unknown teacher {name!r}", f"choose auto or one of {', '.join(TEACHERS)}")
    return TEACHERS[name]


def check_holds(pool: ReplayPool, name: str) -> None:
    """Raise `ConfigError` if the pool does not store the predictions that the teacher reads."""
    needed, stored = teacher_named(name).predictions, pool.settings.predictions
    if needed not in ("none", stored):
        raise ConfigError(
            f"the pool {pool.folder} stores {'tokens only' if stored == 'none' else stored}, but the {name} teacher"
            f" reads {needed}",
            f"make a pool with --predictions {needed}, or choose another teacher",
        )


def make_teacher(name: str, model: nn.Module, dtype: torch.dtype, head: Head | None = None) -> Teacher:
    """The teacher of that name, made before training from `model`, which is still the base; `head` is the base's."""
    return teacher_named(name).make(model, dtype, head)


def frozen_head(model: nn.Module, dtype: torch.dtype) -> Head:
    """The base's head; a copy in `dtype`, the dtype of its products, if training changes the head."""
    with adapter_off(model):
        head = head_of(model)
    trained = head.weight_VD.requires_grad or (head.bias_V is not None and head.bias_V.requires_grad)
    return head.detached(dtype) if trained else head


def teacher_outputs(
    model: nn.Module, batch: ReplayBatch, dtype: torch.dtype, predictions: Predictions, k: int
) -> dict[str, Tensor]:
    """The tensors that a pool stores of the base's predictions of the targets, by name; see `replay.pool`."""
    if predictions == "none":
        return {}
    with without_grad(model):
        return _teacher_outputs(model, batch, dtype, predictions, k)


def _teacher_outputs(
    model: nn.Module, batch: ReplayBatch, dtype: torch.dtype, predictions: Predictions, k: int
) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    outputs: dict[str, list[Tensor]] = {}
    head = head_of(model)
    with autocast(device, dtype):
        for chunk in batch.split(_TEACHER_ROWS):
            hidden_ND = chunk.at_targets(hidden_states(model, chunk.inputs_BP.to(device)))
            hidden_BTD = hidden_ND.unflatten(0, (-1, batch.length))
            if predictions == "hidden":
                outputs.setdefault("hidden", []).append(hidden_BTD.to("cpu", dtype))
                continue
            for row_TD in hidden_BTD:
                ids_TK, log_probs_TK1 = top_k(head.logits(row_TD).log_softmax(dim=-1), k)
                outputs.setdefault("top_ids", []).append(ids_TK[None].int().cpu())
                outputs.setdefault("top_log_probs", []).append(log_probs_TK1[None].half().cpu())
    return {name: torch.cat(tensors) for name, tensors in outputs.items()}
