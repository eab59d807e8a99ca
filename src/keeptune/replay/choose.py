"""Which teacher a run uses, why, and what it costs: chosen from what the pool holds and what the machine has."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from keeptune.errors import ConfigError
from keeptune.models.adapters import causal_model, trainable_base_parameter
from keeptune.models.modeling import head_of
from keeptune.replay.pool import Predictions, ReplayPool
from keeptune.replay.teachers import TeacherKind, check_holds

_SHARE = 2  # at most one part in so many of the free disk or memory


@dataclass(frozen=True, kw_only=True)
class TeacherChoice:
    """A teacher, or none, with its reason and its costs."""

    kind: TeacherKind | None
    """None where the objective needs no teacher."""
    reason: str
    """Why this one."""
    disk_bytes: int = 0
    """What a pool keeps of the base's predictions."""
    memory_bytes: int = 0
    """Held beside the model in training."""

    @property
    def predictions(self) -> Predictions:
        """What a pool for this teacher keeps."""
        return "hidden" if self.kind == "hidden" else "topk" if self.kind == "topk" else "none"

    def __str__(self) -> str:
        time = "one more forward pass on replay rows" if self.kind in ("adapter", "live") else "no forward pass"
        return (
            f"teacher: {self.kind or 'none'}, {self.reason};"
            f" disk {_size(self.disk_bytes)}, memory {_size(self.memory_bytes)}, {time} of the base"
        )


@dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """What the choice weighs."""

    model: nn.Module
    """The model in training."""
    dtype: torch.dtype
    """In which training multiplies."""
    tokens: int
    """Replay tokens of the pool."""
    top_k: int
    """Words a topk pool keeps."""
    disk_free: int
    """Bytes, where the pool would stand."""
    memory_free: int
    """Bytes, on the device."""
    fault: str | None
    """Why the model with its adapter off is not the base: see `adapter_mismatch`."""

    def cost(self, kind: TeacherKind) -> tuple[int, int]:
        """Bytes of disk and of memory."""
        causal, head = causal_model(self.model), head_of(self.model)
        vocabulary, width = head.weight_VD.shape
        moving_head = vocabulary * width * self.dtype.itemsize if head.weight_VD.requires_grad else 0
        return {
            "hidden": (self.tokens * width * self.dtype.itemsize, moving_head),
            "topk": (self.tokens * (6 * self.top_k + 2), 0),
            "adapter": (0, 0),
            "live": (0, sum(p.numel() for p in causal.parameters()) * self.dtype.itemsize),
        }[kind]

    @property
    def has_adapter(self) -> bool:
        """Whether there is an adapter to switch off."""
        return hasattr(self.model, "disable_adapter")

    def choose(self, kind: TeacherKind, reason: str) -> TeacherChoice:
        """The choice of `kind` with its costs."""
        disk, memory = self.cost(kind)
        return TeacherChoice(kind=kind, reason=reason, disk_bytes=disk, memory_bytes=memory)

    def fits(self, kind: TeacherKind) -> bool:
        """Whether a teacher may be chosen unasked."""
        disk, memory = self.cost(kind)
        sound = kind != "adapter" or (self.has_adapter and trainable_base_parameter(self.model) is None)
        return sound and disk * _SHARE <= self.disk_free and memory * _SHARE <= self.memory_free


def choose_teacher(wanted: str, objective: str, pool: ReplayPool | None, room: TeacherOptions) -> TeacherChoice:
    """The teacher that was asked for, or for `auto` the first that fits: hidden, topk, adapter, live.

    Args:
        pool: the pool that was given, whose predictions decide; None where one will be written.

    Raises:
        ConfigError: what was asked for is impossible here, or nothing fits.
    """
    if room.fault and (pool is None or pool.settings.predictions != "hidden" or wanted not in ("auto", "hidden")):
        raise ConfigError(
            f"this model with its adapter off is not the base: {room.fault}",
            "give a pool with hidden states that the raw base wrote (keeptune replay MODEL --out FOLDER), or put on an"
            " adapter that starts as nothing, such as LoRA's default",
        )
    if objective == "ntp":
        return TeacherChoice(kind=None, reason="next-token replay needs the sampled tokens only")
    held = pool.settings.predictions if pool is not None else None
    if wanted != "auto":
        return _as_asked(wanted, pool, room)
    if held in ("hidden", "topk"):
        words = "exact" if held == "hidden" else f"{pool.settings.top_k} words a token" if pool else ""
        return room.choose(held, f"{words}, as the pool holds it")
    reasons: dict[TeacherKind, str] = {
        "hidden": "exact and without a second model",
        "topk": "the disk has no room for hidden states; it cannot see within the tail",
        "adapter": "exact, and nothing has to be kept",
        "live": "exact; a frozen copy of the base",
    }
    kinds: list[TeacherKind] = ["adapter", "live"] if held == "none" else ["hidden", "topk", "adapter", "live"]
    for kind in kinds:
        if room.fits(kind):
            return room.choose(kind, reasons[kind] + (", as the pool holds tokens only" if held == "none" else ""))
    raise ConfigError(
        f"no teacher fits: {_size(room.disk_free)} of disk and {_size(room.memory_free)} of memory are free",
        "make room, lower replay_tokens, or take a LoRA, whose base needs no copy",
    )


def _as_asked(wanted: str, pool: ReplayPool | None, room: TeacherOptions) -> TeacherChoice:
    if wanted not in ("hidden", "topk", "adapter", "live"):
        raise ConfigError(f"unknown teacher {wanted!r}", "choose auto, hidden, topk, adapter or live")
    kind: TeacherKind = wanted  # type: ignore[assignment]
    if pool is not None:
        check_holds(pool, kind)
    if kind == "adapter" and not room.has_adapter:
        raise ConfigError("the adapter teacher needs an adapter, and all weights are tuned", "take hidden or live")
    if kind == "adapter" and (moving := trainable_base_parameter(room.model)):
        raise ConfigError(
            f"the run trains weights of the base itself ({moving}), so the model with its adapter off does not stay it",
            "take the hidden or the live teacher, or bias='none'",
        )
    return room.choose(kind, "as asked")


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
