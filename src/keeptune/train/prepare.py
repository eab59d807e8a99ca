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

from keeptune.errors import ConfigError, PoolMismatch, UnsupportedModel
from keeptune.log import logger
from keeptune.models.adapters import evaluating
from keeptune.models.limits import check_length, check_tokenizer
from keeptune.models.sharded import reshard
from keeptune.objective import Head
from keeptune.replay.batch import ReplayBatch, open_rows
from keeptune.replay.choose import TeacherChoice, choose_teacher
from keeptune.replay.generate import sample_pool
from keeptune.replay.manifest import Predictions
from keeptune.replay.openings import find_openings
from keeptune.replay.pool import ReplayPool
from keeptune.replay.teachers import LiveCopy, Teacher, TeacherOptions, make_teacher, teacher_outputs
from keeptune.storage import free_disk
from keeptune.system import free_bytes, versions
from keeptune.train.base import Base, Given, Where, identify_base, keep_base_reloadable
from keeptune.train.budget.scale import trainable_weights
from keeptune.train.config import CERTIFICATE_ROWS, SCALE_ROWS, KeepConfig
from keeptune.train.context import Host, KeepContext
from keeptune.train.drift import drift_text_rows
from keeptune.train.host.distributed import on_device, teachers_head


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows of the pool by use, in their order."""

    train: int
    drift: int
    """Drift is read on these on the way; they steer λ."""
    scale: int
    """A budget scales the change of the weights on these."""
    certificate: int


def prepare(model: nn.Module, host: Host, keep: KeepConfig, given: Given) -> KeepContext:
    """Everything that a run needs beside its trainer.

    Args:
        model: the trainer's model, unwrapped.

    Raises:
        PoolMismatch: the pool was written by another base.
        ConfigError: settings that do not fit the model.
    """
    pool = open_pool(keep)
    length = keep.replay_length if pool is None else pool.settings.width - 1
    check_length(model, length, "replay rows")
    if host.tokenizer is not None:
        check_tokenizer(model, host.tokenizer)
    base = identify_base(model, given)
    check_base(base, given, keep, pool)
    text = None if keep.drift_text is None else drift_text_rows(keep.drift_text, host.tokenizer, keep)
    keep_base_reloadable(model, base, host.tokenizer, host.output_dir, is_main=host.is_main)
    choice = choose(model, host, keep, base, pool)
    if pool is None and needs_pool(keep):
        pool = write_pool(model, host, keep, base, predictions_of(choice))
        if choice is not None and choice.predictions != pool.settings.predictions:
            choice = choose(model, host, keep, base, pool)  # rank 0 saw less free disk, and started the pool
    if keep.lambda_ and host.is_main and choice is not None:
        logger.info(str(choice))
    split = split_rows(keep, pool)
    text = None if text is None else open_text(model, host, keep, base, pool, text)
    head = teachers_head(model, host)
    steered_apart = keep.budget is not None and text is not None
    context = KeepContext(
        keep=keep,
        host=host,
        base=base.fingerprint,
        pool=pool,
        train_rows=split.train,
        teacher=build_teacher(model, host, keep, base, choice, head),
        base_head=head,
        drift_rows=with_base_states(model, host, base, drift_rows(pool, split) if text is None else text),
        budget_rows=with_base_states(model, host, base, drift_rows(pool, split)) if steered_apart else None,
        scale_rows=pool_part(model, host, base, pool, split.train + split.drift, split.scale),
        certificate_rows=pool_part(model, host, base, pool, -split.certificate, split.certificate),
        start_weights=trainable_weights(model) if keep.budget is not None and not host.sharded else {},
        lambda_=keep.first_lambda,
        require_finite=keep.lambda_ > 0,
        starts_apart=base.starts_apart,
    )
    reshard(model)  # before the trainer makes its optimizer
    return context


def open_pool(keep: KeepConfig) -> ReplayPool | None:
    """The pool that the settings name or hold.

    Raises:
        ConfigError: its rows open in another way than the settings ask for.
    """
    pool = ReplayPool.open(keep.replay) if isinstance(keep.replay, str | Path) else keep.replay
    if pool is not None and keep.opening not in ("auto", pool.settings.opening):
        raise ConfigError(
            f"the rows of {pool.folder} open as {pool.settings.opening!r}, and opening is {keep.opening!r}",
            "leave opening out, or make the pool again with that opening",
        )
    return pool


def check_base(base: Base, given: Given, keep: KeepConfig, pool: ReplayPool | None) -> None:
    """Check that the base can be reached, and that it wrote the pool.

    Raises:
        UnsupportedModel: an adapter has changed the base, and there is no pool of the base's hidden states.
        PoolMismatch: the pool was written by another base.
    """
    if pool is not None:
        try:
            pool.check_base(base.fingerprint)
        except PoolMismatch as error:
            if not base.changed:
                raise
            raise PoolMismatch(f"{error.what} (the trainer changed the model: {base.changed})", error.fix) from error
    stored = pool is not None and pool.settings.predictions == "hidden"
    if base.where is not Where.NOWHERE or (stored and keep.drift_text is None and keep.teacher in ("auto", "hidden")):
        return
    fix = "give a pool of hidden states that the base wrote without the adapter (keeptune replay MODEL --out FOLDER)"
    if given.fingerprint is None or not given.plain:
        fix = f"pass the base as a model object together with peft_config, or {fix}"
    raise UnsupportedModel(f"keeptune cannot reach the base in this model: {base.mismatch}", fix)


def choose(model: nn.Module, host: Host, keep: KeepConfig, base: Base, pool: ReplayPool | None) -> TeacherChoice | None:
    """The teacher by name; None where the settings hold a teacher object."""
    if not isinstance(keep.teacher, str):
        return None
    if pool is None and needs_pool(keep):
        pool = ReplayPool.find(pool_folder(host, keep, base))
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
    held_out = keep.drift_rows * (1 + (SCALE_ROWS + CERTIFICATE_ROWS if keep.budget is not None else 0))
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
        "opening": keep.opening,
        "teacher": keep.teacher if isinstance(keep.teacher, str) else "object",
        "top_k": keep.top_k,
        "versions": versions(),
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return host.output_dir / f"replay-{digest[:12]}"


def write_pool(model: nn.Module, host: Host, keep: KeepConfig, base: Base, predictions: Predictions) -> ReplayPool:
    """Let the base write the run's pool: every process writes a part of it."""
    # sample_pool disables an adapter. Where the base is the model with its adapter, the function inside it is used.
    sample = sample_pool.__wrapped__ if base.where is Where.ADAPTER_ON else sample_pool  # type: ignore[attr-defined]
    with on_device(model, host.device):
        pool: ReplayPool = sample(
            model,
            host.tokenizer,
            pool_folder(host, keep, base),
            tokens=tokens_to_write(keep),
            length=keep.replay_length,
            seed=host.seed,
            start=keep.document_start,
            opening=keep.opening,
            dtype=host.dtype,
            predictions=predictions,
            top_k=keep.top_k,
        )
    return pool


def split_rows(keep: KeepConfig, pool: ReplayPool | None) -> Split:
    """How many of the pool's rows serve for what.

    Raises:
        ConfigError: too few rows.
    """
    if pool is None:
        return Split(train=0, drift=0, scale=0, certificate=0)
    scale, certificate = keep.scale_rows(pool.rows), keep.certificate_rows(pool.rows)
    train = pool.rows - keep.drift_rows - scale - certificate
    if train < (1 if keep.lambda_ else 0) or (keep.budget is not None and not certificate):
        raise ConfigError(
            f"the replay pool has {pool.rows} rows, and drift_rows sets {keep.drift_rows} of them aside",
            "use a larger pool or lower drift_rows",
        )
    return Split(train=train, drift=keep.drift_rows, scale=scale, certificate=certificate)


def build_teacher(
    model: nn.Module, host: Host, keep: KeepConfig, base: Base, choice: TeacherChoice | None, head: Head
) -> Teacher | None:
    """The teacher, made while the model is still the base."""
    if not isinstance(keep.teacher, str):
        return keep.teacher
    if choice is None or choice.kind is None:
        return None
    teacher = make_teacher(choice.kind, model, host.dtype, head)
    if isinstance(teacher, LiveCopy):
        teacher.copy.to(host.device)
        teacher.adapter_on = base.where is Where.ADAPTER_ON
    return teacher


def open_text(
    model: nn.Module, host: Host, keep: KeepConfig, base: Base, pool: ReplayPool | None, text: ReplayBatch
) -> ReplayBatch:
    """The rows of a text, which start with one token, opened as the rows of the pool are."""
    if pool is not None and pool.settings.prompts == "document start":
        openings = pool.settings.openings
    elif pool is not None and pool.settings.prompts == "mixed":
        openings = pool.settings.openings[::2]
    else:
        with on_device(model, host.device), base.within(model):
            openings = find_openings(
                model,
                host.tokenizer,
                start=keep.document_start,
                opening=keep.opening,
                length=text.length,
                seed=host.seed,
            ).ids
    return open_rows(text.tokens_BW, openings, range(len(text.tokens_BW)))


def drift_rows(pool: ReplayPool | None, split: Split) -> ReplayBatch:
    """The pool's rows on which drift is read."""
    if pool is None:
        raise ConfigError("drift is read on a pool or on drift_text, and there is neither", "set drift_text or replay")
    return pool.batch(torch.arange(split.train, split.train + split.drift))


def pool_part(
    model: nn.Module, host: Host, base: Base, pool: ReplayPool | None, first: int, rows: int
) -> ReplayBatch | None:
    """Rows of the pool from `first` on, which may count from the end, with the base's states; None for no rows."""
    if pool is None or not rows:
        return None
    return with_base_states(model, host, base, pool.batch(torch.arange(rows) + first % pool.rows))


def with_base_states(model: nn.Module, host: Host, base: Base, batch: ReplayBatch) -> ReplayBatch:
    """The batch with the base's hidden states, computed here where the pool does not store them."""
    if "hidden" in batch.outputs:
        return batch
    with on_device(model, host.device), base.within(model), evaluating(model):
        return replace(batch, outputs=teacher_outputs(model, batch, host.dtype, "hidden", 0))
