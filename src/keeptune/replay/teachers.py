"""Where the base's predictions on replay rows come from while training.

| teacher | keeps                       | costs                                            |
|---------|-----------------------------|--------------------------------------------------|
| hidden  | final hidden states on disk | D numbers a token, a copy of the head if it moves |
| topk    | K likeliest words on disk   | about 6·K bytes a token; blind within the tail    |
| adapter | nothing: adapter switched off | a forward pass on each replay row              |
| live    | nothing: a frozen copy      | the model's memory again, and that forward pass   |

Shapes: B rows, T positions, N = B·T tokens, D width, V vocabulary, K words.
"""

from __future__ import annotations

import copy
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from keeptune.errors import ConfigError
from keeptune.models.adapters import adapter_off, evaluating
from keeptune.models.modeling import autocast, head_of, hidden_states
from keeptune.objective import Head, HiddenTarget, Target, TopKTarget, top_k
from keeptune.replay.pool import Predictions, ReplayBatch, ReplayPool

TeacherKind = Literal["hidden", "topk", "adapter", "live"]

_TEACHER_ROWS = 16


class Teacher(Protocol):
    """The base's predictions, row by row."""

    def target(self, model: nn.Module, batch: ReplayBatch) -> Target:
        """Those for every token of the batch; `model` is the one in training, unwrapped."""
        ...


class CachedHidden:
    """The pool's hidden states under the base's head: exact."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def target(self, model: nn.Module, batch: ReplayBatch) -> Target:
        """See `Teacher.target`."""
        return HiddenTarget(hidden_ND=batch.hidden_BTD.flatten(0, 1), head=self.head)


class CachedTopK:
    """The pool's likeliest words and the mass of the rest: see `TopKTarget` for what that cannot see."""

    def target(self, model: nn.Module, batch: ReplayBatch) -> Target:
        """See `Teacher.target`."""
        return TopKTarget(ids_NK=batch.top_ids_BTK.flatten(0, 1), log_probs_NK1=batch.top_log_probs_BTK1.flatten(0, 1))


class AdapterOff:
    """The model in training with its adapter switched off: exact while the base itself does not change."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def target(self, model: nn.Module, batch: ReplayBatch) -> Target:
        """See `Teacher.target`."""
        with adapter_off(model), evaluating(model), torch.no_grad():
            hidden_BTD = hidden_states(model, batch.inputs_BT)
        return HiddenTarget(hidden_ND=hidden_BTD.flatten(0, 1), head=self.head)


class LiveCopy:
    """A frozen copy of the base beside the model: exact, and twice the memory.

    Args:
        model: the base, on its device; with an adapter, switched off.
        dtype: of the copy's weights: the one in which training multiplies.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self.copy = copy.deepcopy(model).to(dtype).eval().requires_grad_(False)

    def target(self, model: nn.Module, batch: ReplayBatch) -> Target:
        """See `Teacher.target`."""
        with adapter_off(self.copy), torch.no_grad():
            hidden_BTD = hidden_states(self.copy, batch.inputs_BT)
        return HiddenTarget(hidden_ND=hidden_BTD.flatten(0, 1), head=head_of(self.copy))


def check_holds(pool: ReplayPool, kind: TeacherKind) -> None:
    """Raise `ConfigError` where the teacher reads from the pool what the pool does not keep."""
    held = pool.settings.predictions
    if kind in ("hidden", "topk") and kind != held:
        raise ConfigError(
            f"the pool {pool.folder} keeps {'tokens only' if held == 'none' else held}, and the teacher is {kind}",
            f"make a pool with --predictions {kind}, or choose another teacher",
        )


def make_teacher(kind: TeacherKind, model: nn.Module, dtype: torch.dtype, head: Head | None = None) -> Teacher:
    """The teacher of that kind, made before training from `model`, which is still the base; `head` is the base's."""
    if kind == "topk":
        return CachedTopK()
    if kind == "live":
        return LiveCopy(model, dtype)
    head = head or frozen_head(model, dtype)
    return CachedHidden(head) if kind == "hidden" else AdapterOff(head)


def frozen_head(model: nn.Module, dtype: torch.dtype) -> Head:
    """The base's head; where training would move it a copy, in the dtype in which it will be multiplied."""
    head = head_of(model)
    moves = head.weight_VD.requires_grad or (head.bias_V is not None and head.bias_V.requires_grad)
    return head.detached(dtype) if moves else head


@torch.inference_mode()
def teacher_outputs(
    model: nn.Module, inputs_RT: Tensor, dtype: torch.dtype, predictions: Predictions, k: int
) -> dict[str, Tensor]:
    """What a pool keeps of the base's predictions at every position: tensors by name; see `replay.pool`."""
    if predictions == "none":
        return {}
    device = next(model.parameters()).device
    kept: dict[str, list[Tensor]] = {}
    head = head_of(model)
    with autocast(device, dtype):
        for chunk_BT in inputs_RT.split(_TEACHER_ROWS):
            hidden_BTD = hidden_states(model, chunk_BT.to(device))
            if predictions == "hidden":
                kept.setdefault("hidden", []).append(hidden_BTD.to("cpu", dtype))
                continue
            for row_TD in hidden_BTD:
                ids_TK, log_probs_TK1 = top_k(head.logits(row_TD).log_softmax(dim=-1), k)
                kept.setdefault("top_ids", []).append(ids_TK[None].int().cpu())
                kept.setdefault("top_log_probs", []).append(log_probs_TK1[None].half().cpu())
    return {name: torch.cat(tensors) for name, tensors in kept.items()}
