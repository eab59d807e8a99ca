"""From a trainer's model to a `KeepContext`: pure steps, each taking the value of the one before.

    base → teacher choice → pool → split of its rows → teacher and rows with the base's predictions

All of it happens before training, while the model is still the base.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.models.adapters import adapter_mismatch, adapter_off, causal_model, evaluating, has_adapter
from keeptune.models.limits import check_length, check_tokenizer
from keeptune.models.modeling import check_head, fingerprint
from keeptune.objective import Head
from keeptune.replay.choose import TeacherChoice, choose_teacher
from keeptune.replay.generate import sample_pool
from keeptune.replay.pool import Predictions, ReplayBatch, ReplayPool, read_manifest
from keeptune.replay.teachers import LiveCopy, Teacher, TeacherOptions, make_teacher, teacher_outputs
from keeptune.storage import free_disk
from keeptune.system import free_bytes, versions
from keeptune.train.config import CERTIFICATE_ROWS, KeepConfig
from keeptune.train.context import Host, KeepContext
from keeptune.train.distributed import main_process_first, on_device, teachers_head
from keeptune.train.drift import drift_text_rows


@dataclass(frozen=True, kw_only=True)
class Base:
    """Which model is held on to."""

    fingerprint: str
    mismatch: str | None
    """Why the model with its adapter disabled is not the base; None where it is."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """The model as the trainer was given it."""

    fingerprint: str | None
    """None where the trainer loaded the model itself."""
    plain: bool
    """A module without an adapter."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows of the pool by use: first those to train on, then those that drift is read on, then the certificate's."""

    train: int
    drift: int
    certificate: int


def given_model(model: object) -> Given:
    """What is known of the model before the trainer puts an adapter on it."""
    if not isinstance(model, nn.Module):
        return Given(fingerprint=None, plain=False)
    return Given(fingerprint=fingerprint(model), plain=not has_adapter(model))


def prepare(model: nn.Module, host: Host, keep: KeepConfig, given: Given) -> KeepContext:
    """Everything that a run needs beside its trainer.

    Args:
        model: the trainer's model, unwrapped.

    Raises:
        PoolMismatch: the pool was written by another base.
        ConfigError: settings that do not fit the model.
    """
    pool = open_pool(keep)
    length = keep.replay_length if pool is None else pool.settings.length
    check_length(model, length, "replay rows")
    if host.tokenizer is not None:
        check_tokenizer(model, host.tokenizer)
    base = identify_base(model, given, keep, pool)
    text = None if keep.drift_text is None else drift_text_rows(keep.drift_text, host.tokenizer, keep)
    if pool is not None:
        pool.check_base(base.fingerprint)
    choice = choose(model, host, keep, base, pool)
    if pool is None and needs_pool(keep):
        pool = write_pool(model, host, keep, base, predictions_of(choice))
        if choice is not None and choice.predictions != pool.settings.predictions:
            choice = choose(model, host, keep, base, pool)  # another process saw less free disk, and wrote the pool
    if keep.lambda_ and host.is_main and choice is not None:
        logger.info(str(choice))
    split = split_rows(keep, pool)
    head = teachers_head(model, host)
    steered_apart = keep.budget is not None and text is not None
    return KeepContext(
        keep=keep,
        host=host,
        base=base.fingerprint,
        pool=pool,
        train_rows=split.train,
        teacher=build_teacher(model, host, keep, choice, head),
        base_head=head,
        drift_rows=with_base_states(model, host, drift_rows(pool, split) if text is None else text),
        budget_rows=with_base_states(model, host, drift_rows(pool, split)) if steered_apart else None,
        certificate_rows=certificate_rows(model, host, pool, split),
        lambda_=keep.lambda_,
        require_finite=keep.lambda_ > 0,
    )


def require_language_model(model: nn.Module) -> None:
    """Refuse a model that predicts no next token.

    Raises:
        ConfigError: an encoder-decoder, a model without a language-model head, or one whose logits cannot be rebuilt.
    """
    name, config = type(model).__name__, getattr(model, "config", None)
    head = getattr(causal_model(model), "get_output_embeddings", lambda: None)()
    if head is None:
        raise ConfigError(
            f"{name} has no language-model head, so there are no next-token predictions to keep",
            "train a causal language model, or set lambda_=0 to train without keeping",
        )
    if getattr(config, "is_encoder_decoder", False):
        raise ConfigError(
            f"{name} is an encoder-decoder; keeptune keeps the predictions of decoder-only models",
            "train a causal language model, or set lambda_=0 to train without keeping",
        )
    check_head(model)


def open_pool(keep: KeepConfig) -> ReplayPool | None:
    """The pool that the settings name or hold."""
    if keep.replay is None or isinstance(keep.replay, ReplayPool):
        return keep.replay
    return ReplayPool.open(keep.replay)


def identify_base(model: nn.Module, given: Given, keep: KeepConfig, pool: ReplayPool | None) -> Base:
    """The base's fingerprint, and whether disabling the adapter still gives the base."""
    mark, mismatch = fingerprint(model), None
    if given.fingerprint is not None and mark != given.fingerprint:
        mismatch = "initializing the adapter changed the base's weights (PiSSA and OLoRA do)"
    elif not given.plain and pool is None:
        mismatch = adapter_mismatch(model)
    if mismatch and keep.drift_text is not None:
        raise ConfigError(
            f"drift on drift_text needs the base, and {mismatch}",
            "leave drift_text out, or use an adapter that starts at zero, such as LoRA's default",
        )
    return Base(fingerprint=given.fingerprint or mark, mismatch=mismatch)


def choose(model: nn.Module, host: Host, keep: KeepConfig, base: Base, pool: ReplayPool | None) -> TeacherChoice | None:
    """The teacher by name; None where the settings hold a teacher object."""
    if not isinstance(keep.teacher, str):
        return None
    if pool is None and needs_pool(keep):
        pool = read_manifest(pool_folder(host, keep, base))
    options = TeacherOptions(
        model=model,
        dtype=host.dtype,
        tokens=pool.tokens if pool is not None else tokens_to_write(keep),
        top_k=pool.settings.top_k if pool is not None else keep.top_k,
        disk_free=free_disk(host.output_dir),
        memory_free=free_bytes(host.device),
        adapter_mismatch=base.mismatch,
    )
    return choose_teacher(keep.teacher, keep.objective, pool, options)


def predictions_of(choice: TeacherChoice | None) -> Predictions:
    """What a new pool stores; a teacher object brings its own predictions."""
    return "none" if choice is None else choice.predictions


def needs_pool(keep: KeepConfig) -> bool:
    """Whether the run reads a pool: it does not for plain fine-tuning whose drift is read on a text."""
    return keep.lambda_ > 0 or keep.drift_text is None


def tokens_to_write(keep: KeepConfig) -> int:
    """Tokens of a new pool; plain fine-tuning needs only the rows on which drift is read."""
    held_out = keep.drift_rows * (1 + (CERTIFICATE_ROWS if keep.budget is not None else 0))
    return (keep.replay_tokens if keep.lambda_ else 0) + held_out * keep.replay_length


def pool_folder(host: Host, keep: KeepConfig, base: Base) -> Path:
    """Where the run writes its pool: named by all that decides its bytes, so that no other run's pool is in the way."""
    # The teacher's choice is left out: with a pool there already, the pool decides.
    identity = {
        "base": base.fingerprint,
        "dtype": str(host.dtype),
        "length": keep.replay_length,
        "next_token": keep.objective == "ntp",
        "seed": host.seed,
        "start": keep.document_start,
        "teacher": keep.teacher if isinstance(keep.teacher, str) else "object",
        "top_k": keep.top_k,
        "versions": versions(),
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return host.output_dir / f"replay-{digest[:12]}"


def write_pool(model: nn.Module, host: Host, keep: KeepConfig, base: Base, predictions: Predictions) -> ReplayPool:
    """Let the base write the run's pool; other processes wait for it."""
    with main_process_first(), on_device(model, host.device), adapter_off(model):
        return sample_pool(
            model,
            host.tokenizer,
            pool_folder(host, keep, base),
            tokens=tokens_to_write(keep),
            length=keep.replay_length,
            seed=host.seed,
            start=keep.document_start,
            dtype=host.dtype,
            predictions=predictions,
            top_k=keep.top_k,
        )


def split_rows(keep: KeepConfig, pool: ReplayPool | None) -> Split:
    """How many of the pool's rows serve for what.

    Raises:
        ConfigError: too few rows.
    """
    if pool is None:
        return Split(train=0, drift=0, certificate=0)
    certificate = keep.certificate_rows(pool.rows)
    train = pool.rows - keep.drift_rows - certificate
    if train < (1 if keep.lambda_ else 0) or (keep.budget is not None and not certificate):
        raise ConfigError(
            f"the replay pool has {pool.rows} rows, and drift_rows sets {keep.drift_rows} of them aside",
            "use a larger pool or lower drift_rows",
        )
    return Split(train=train, drift=keep.drift_rows, certificate=certificate)


def build_teacher(
    model: nn.Module, host: Host, keep: KeepConfig, choice: TeacherChoice | None, head: Head
) -> Teacher | None:
    """The teacher, made while the model is still the base."""
    if not isinstance(keep.teacher, str):
        return keep.teacher
    if choice is None or choice.kind is None:
        return None
    teacher = make_teacher(choice.kind, model, host.dtype, head)
    if isinstance(teacher, LiveCopy):
        teacher.copy.to(host.device)
    return teacher


def drift_rows(pool: ReplayPool | None, split: Split) -> ReplayBatch:
    """The pool's rows on which drift is read."""
    if pool is None:
        raise ConfigError("drift is read on a pool or on drift_text, and there is neither", "set drift_text or replay")
    return pool.batch(torch.arange(split.train, split.train + split.drift))


def certificate_rows(model: nn.Module, host: Host, pool: ReplayPool | None, split: Split) -> ReplayBatch | None:
    """The pool's last rows, which neither training nor λ sees."""
    if pool is None or not split.certificate:
        return None
    first = split.train + split.drift
    return with_base_states(model, host, pool.batch(torch.arange(first, first + split.certificate)))


def with_base_states(model: nn.Module, host: Host, batch: ReplayBatch) -> ReplayBatch:
    """The batch with the base's hidden states, computed here where the pool does not store them."""
    if "hidden" in batch.outputs:
        return batch
    with on_device(model, host.device), adapter_off(model), evaluating(model):
        return replace(batch, outputs=teacher_outputs(model, batch.inputs_BT, host.dtype, "hidden", 0))
