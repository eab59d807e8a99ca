"""Which model a run holds on to: the base, and how to reach it inside the model in training.

The base is the model without its adapter. An initialization such as PiSSA moves part of the base's weights into the
adapter; then the base is the whole model as it is before the first step. Both are measured, where the model was given
without its adapter; else the adapter's configuration tells.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from keeptune.errors import ConfigError, UnsupportedModel
from keeptune.log import logger
from keeptune.models.adapters import (
    PROBE_TOKENS,
    active_configs,
    adapter_off,
    causal_model,
    describe_adapters,
    differs_from_disk,
    evaluating,
    has_adapter,
    moved_base,
    name_base,
    next_token_logits,
    perturbed_adapter,
    save_base,
    trainable_base_parameter,
    unrepeatable,
)
from keeptune.models.disk.saving import make_portable
from keeptune.models.guarded import quiet
from keeptune.models.modeling import check_head, fingerprint, head_of, hidden_states, parameter_marks
from keeptune.models.quantized import settle

BASE = "base"
"""Folder of a run's output, for a base that is saved nowhere else."""
_TOLERANCE, _TOLERANCE_16_BIT = 1e-4, 0.02
_SHOWN = 3


class Where(StrEnum):
    """Where the base is, in the model as it is before the first step."""

    MODEL = "the model"
    ADAPTER_OFF = "the model with its adapter disabled"
    ADAPTER_ON = "the model with its adapter, before the first step"
    NOWHERE = "nowhere in the model"


_OFF: tuple[Where, None] = (Where.ADAPTER_OFF, None)


@dataclass(frozen=True, kw_only=True)
class Base:
    """The base, which a run holds on to."""

    fingerprint: str
    where: Where
    mismatch: str | None = None
    """Why the model with its adapter disabled is not the base, now or after training; None where it is."""
    changed: str = ""
    """What the trainer changed about the model before training, other than putting an adapter on it."""
    starts_apart: bool = False
    """Whether the model differs from the base before its first step, so that KL starts above 0."""

    @contextlib.contextmanager
    def within(self, model: nn.Module) -> Iterator[None]:
        """Make `model`, before its first step, compute as the base for the block."""
        with adapter_off(model) if self.where is Where.ADAPTER_OFF else contextlib.nullcontext():
            yield


@dataclass(frozen=True, kw_only=True)
class Given:
    """The model as the trainer was given it."""

    fingerprint: str | None = None
    """None where the trainer loaded the model itself."""
    plain: bool = False
    """A module without an adapter."""
    marks: dict[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    logits_TV: Tensor | None = None
    """Its predictions on a probe, where the trainer is about to put an adapter on it."""

    def changes(self, model: nn.Module) -> str:
        """The base's parameters that the trainer changed, in words; empty if it changed none."""
        if self.fingerprint is None:
            return ""
        now = parameter_marks(model)
        changed = [name for name in sorted({*self.marks, *now}) if self.marks.get(name) != now.get(name)]
        if not changed:
            return ""
        shown = ", ".join(_change(name, self.marks.get(name), now.get(name)) for name in changed[:_SHOWN])
        return f"{shown} and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else shown


def _change(name: str, before: tuple[tuple[int, ...], str] | None, after: tuple[tuple[int, ...], str] | None) -> str:
    if before is None or after is None:
        return f"{name} {'is new' if before is None else 'is gone'}"
    return name if before[0] == after[0] else f"{name} was resized from {list(before[0])} to {list(after[0])}"


def given_model(model: object, *, adapts: bool) -> Given:
    """What is known of the model before the trainer has it; `adapts`: whether the trainer will put an adapter on it."""
    if not isinstance(model, nn.Module):
        return Given()
    settle(model)
    plain = not has_adapter(model)
    return Given(
        fingerprint=fingerprint(model),
        plain=plain,
        marks=parameter_marks(model),
        logits_TV=next_token_logits(model) if plain and adapts else None,
    )


def identify_base(model: nn.Module, given: Given) -> Base:
    """Find the base in the trainer's model, before its first step."""
    mark, changed = fingerprint(model), given.changes(model)
    if not has_adapter(model):
        if changed:
            logger.info(f"the trainer changed the model: {changed}. keeptune keeps the predictions of the new model.")
        return Base(fingerprint=mark, where=Where.MODEL, changed=changed)
    on_TV = next_token_logits(model)
    with adapter_off(model):
        off_TV = next_token_logits(model)
    narrow = _narrow(model)
    where, mismatch = _find(model, given, changed, on_TV, off_TV, narrow)
    if where is not Where.ADAPTER_OFF:
        apart = where is Where.NOWHERE
        return Base(fingerprint=given.fingerprint or mark, where=where, mismatch=mismatch, starts_apart=apart)
    apart = not _close(on_TV, off_TV, narrow)
    if apart:
        logger.info(
            f"the {describe_adapters(model)} adapter changes the predictions before the first step: it is trained, or "
            "starts at other values than the identity. keeptune keeps the predictions of the model without the "
            "adapter, so KL starts above 0. To keep the predictions with a trained adapter, merge it first."
        )
    mismatch = _lost_by_training(model)
    return Base(fingerprint=mark, where=where, mismatch=mismatch, changed=changed, starts_apart=apart)


def _find(
    model: nn.Module, given: Given, changed: str, on_TV: Tensor, off_TV: Tensor, narrow: bool
) -> tuple[Where, str | None]:
    """Where the base is, and why it is not the model with its adapter disabled.

    `on_TV`, `off_TV`: the model's predictions on the probe with its adapter, and with the adapter disabled.
    """
    kind, moved = describe_adapters(model), moved_base(model)
    why = moved or f"putting the {kind} adapter on the model changed it"
    if given.logits_TV is None:
        return (Where.NOWHERE, f"{why}, and the base was not given without its adapter") if moved else _OFF
    if _close(off_TV, given.logits_TV, narrow):
        return _OFF
    why = f"{why}{f' ({changed})' if changed else ''}"
    if _close(on_TV, given.logits_TV, narrow):
        logger.info(f"{why}: keeptune keeps the predictions of the model as it is before the first step")
        return Where.ADAPTER_ON, why
    return Where.NOWHERE, f"{why}, and the adapter does not give them back"


def _lost_by_training(model: nn.Module) -> str | None:
    """Why disabling the adapter will not recover the base once it is trained; None if it will."""
    if name := trainable_base_parameter(model):
        return f"parameter {name!r} of the base is trainable"
    with adapter_off(model):
        before_TV = next_token_logits(model)
    with perturbed_adapter(model), adapter_off(model):
        after_TV = next_token_logits(model)
    if torch.equal(before_TV, after_TV):
        return None
    return f"the {describe_adapters(model)} adapter changes the model also where it is disabled"


def _close(left_TV: Tensor, right_TV: Tensor, narrow: bool) -> bool:
    """Whether two predictions are the same up to rounding, on the tokens that both have."""
    words = min(left_TV.shape[-1], right_TV.shape[-1])
    left_TV, right_TV = left_TV[..., :words], right_TV[..., :words]
    tolerance = _TOLERANCE_16_BIT if narrow else _TOLERANCE
    return bool((left_TV - right_TV).abs().max() <= tolerance * right_TV.abs().max())


def require_language_model(model: nn.Module) -> None:
    """Refuse a model that predicts no next token.

    Raises:
        UnsupportedModel: an encoder-decoder, a model without a language-model head, or one whose logits cannot be
            rebuilt, as it is or once its adapter is trained.
    """
    settle(model)
    fix = "train a causal language model, or set lambda_=0 to train without keeping"
    if not hasattr(causal_model(model), "get_output_embeddings"):
        raise UnsupportedModel(f"{type(model).__name__} has no language-model head to keep the predictions of", fix)
    kind = describe_adapters(model)
    try:
        check_head(model)
        own_TV = next_token_logits(model) if has_adapter(model) else None
    except ConfigError as error:
        raise UnsupportedModel(error.what, fix) from error
    except (TypeError, ValueError) as error:
        if not has_adapter(model):
            raise
        raise UnsupportedModel(
            f"the {kind} adapter predicts from more than the tokens: {error}",
            "use another adapter, or set lambda_=0 to train without keeping",
        ) from error
    if own_TV is None:
        return
    with perturbed_adapter(model):
        trained = next_token_logits(model), _rebuilt_logits(model)
    if not _close(_rebuilt_logits(model), own_TV, _narrow(model)) or not _close(*trained, _narrow(model)):
        raise UnsupportedModel(
            f"the {kind} adapter changes the output layer by more than its weight, so keeptune cannot compute its "
            "predictions from hidden states",
            "leave the output layer (such as lm_head) out of target_modules, or name it in modules_to_save",
        )


@torch.no_grad()
def _rebuilt_logits(model: nn.Module) -> Tensor:
    """The logits that `next_token_logits` gives, from hidden states and head."""
    weight = causal_model(model).get_input_embeddings().weight
    input_BT = torch.arange(PROBE_TOKENS, device=weight.device).remainder(len(weight))[None]
    with evaluating(model):
        return head_of(model).logits(hidden_states(model, input_BT))[0].float().cpu()


def _narrow(model: nn.Module) -> bool:
    return next(causal_model(model).parameters()).dtype.itemsize == 2


def keep_base_reloadable(model: nn.Module, base: Base, tokenizer: Any, folder: Path, *, is_main: bool) -> None:
    """Let the adapter in training name a base that it can be loaded on again.

    A base that is a merged adapter, whose weights are not those saved under its name, or that the adapter's
    initialization has changed by chance, is saved in `folder`/base.
    """
    name = getattr(causal_model(model), "name_or_path", None)
    if not hasattr(model, "save_pretrained") or not active_configs(model) or not name:
        return
    if Path(name).is_dir():
        name = str(Path(name).resolve())
        name_base(model, name)
    if base.where is Where.ADAPTER_OFF:
        why = differs_from_disk(model, name)
    else:
        why = next(filter(None, map(unrepeatable, active_configs(model))), None)
    if why is None:
        return
    saved = (folder / BASE).resolve()
    if is_main and (not (saved / "config.json").is_file() or differs_from_disk(model, str(saved))):
        with quiet():
            save_base(model, tokenizer, saved)
        make_portable(saved)
        logger.info(f"the adapter is not relative to the model saved as {name} ({why}): saved its base as {saved}")
    name_base(model, str(saved), moved=True)
