"""One fine-tuning run from names to a saved model: what `keeptune tune` does.

The run's folder: run.json (settings), runs.jsonl (readings), replay/ (the pool, unless one was given),
checkpoint-*/ (while it runs), model/ (the tuned model or adapter with its card).
"""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerState, set_seed
from transformers.trainer import TRAINER_STATE_NAME
from trl import SFTConfig

from keeptune.data.templates import on_day, select_template
from keeptune.errors import BoundBroken, ConfigError, Diverged, Interrupted, KeeptuneError, UnsupportedModel
from keeptune.log import logger
from keeptune.models.adapters import record_base
from keeptune.models.disk.dtypes import recast
from keeptune.models.disk.saving import make_portable
from keeptune.models.guarded import quiet
from keeptune.models.limits import check_sizes
from keeptune.models.loading import load_tokenizer
from keeptune.models.modeling import fingerprint, has_bf16, select_attention, training_dtype
from keeptune.models.quantized import describe
from keeptune.runs.advice import advise
from keeptune.runs.base import dtype_to_save, load_base
from keeptune.runs.card import card
from keeptune.runs.folder import check_folder, claim_folder, released_if_it_fails, workspace
from keeptune.runs.hub import check_hub, push
from keeptune.runs.settings import TuneSettings
from keeptune.runs.sft import refused_by_trl
from keeptune.runs.task_rows import task_rows
from keeptune.runs.trainer import TuneTrainer, lora_config
from keeptune.storage import atomic_folder, damaged_json, storage_errors
from keeptune.system import default_device
from keeptune.train.base import BASE
from keeptune.train.budget.certificate import read_certificate
from keeptune.train.callbacks.checkpoint import (
    CheckpointCallback,
    StopCallback,
    check_files,
    forget_checkpoint,
    last_good_checkpoint,
)
from keeptune.train.callbacks.forecast import law_of
from keeptune.train.callbacks.progress import ProgressCallback
from keeptune.train.context import KeepContext
from keeptune.train.drift import drift_text_rows
from keeptune.train.readings import FILE, read_rows
from keeptune.train.trainers import KeepSFTTrainer

MODEL = "model"


def tune(
    settings: TuneSettings,
    *,
    resume: bool = False,
    overwrite: bool = False,
    label: str = "Tuning",
    with_advice: bool = False,
    extra_callbacks: list[Any] | None = None,
) -> Path:
    """Fine-tune as `settings` say; returns the folder of the saved model.

    Raises:
        OutputExists: the folder holds a run and neither `resume` nor `overwrite` is set.
        Interrupted: by Ctrl-C or SIGTERM, after a checkpoint.
        BoundBroken: the forecast surely breaks a bound of `stop_if_forecast`, after a checkpoint.
        Diverged: the loss became NaN or infinite; the last good checkpoint stays.
        SourceError, PoolError, ConfigError, StorageError: see `keeptune.errors`.
    """
    out = Path(settings.out)
    args = settings.sft_config(bf16=has_bf16(default_device()))
    is_main = args.process_index == 0
    check_hub(settings)
    if is_main:
        check_folder(out, settings, resume=resume, overwrite=overwrite)
    if resume and (out / MODEL).is_dir():
        if is_main:
            logger.info(f"this run is finished: {out / MODEL}")
            publish(settings)
        return out / MODEL
    set_seed(settings.seed)
    dtype = dtype_to_save(settings)
    model, tokenizer = load_base(settings, bf16=args.bf16), load_tokenizer(settings.model)
    if "bf16" not in settings.sft and args.bf16 and training_dtype(model) != torch.bfloat16:
        args = settings.sft_config(bf16=False)
    if settings.chat_template is not None:
        select_template(tokenizer, settings.chat_template)
    # TRL switches it on for its loss, and with it `generate` fails on padded prompts.
    flag = getattr(model.config.get_text_config(), "output_router_logits", None)
    select_attention(model, max(settings.max_length, settings.replay_length))
    day = workspace(out).day if resume else date.today()
    with on_day(day):
        train_rows, held_out_rows, bad_rows = task = task_rows(settings, tokenizer)
    check_sizes(model, tokenizer, task.longest(settings), "task rows")
    # Whatever cannot be read fails here, before --overwrite deletes the run in this folder.
    if settings.drift_text is not None:
        drift_text_rows(settings.drift_text, tokenizer, settings)
    if settings.laws is not None:
        law_of(settings.laws, fingerprint(model))
    for line in advise(settings, args, len(train_rows)) if with_advice and is_main else ():
        logger.info(f"advice: {line}")
    with storage_errors(out):
        with released_if_it_fails(out, resume=resume) if is_main else nullcontext():
            if is_main:
                claim_folder(out, settings, resume=resume, day=day)
            PartialState().wait_for_everyone()
            trainer = build_trainer(settings, args, model, tokenizer, train_rows, held_out_rows)
            train(trainer, out, label=label, resume=resume, extra_callbacks=extra_callbacks or [])
        if flag is not None:
            trainer.model.config.get_text_config().output_router_logits = flag
        with quiet():
            folder = save(trainer, settings, dtype, bad_rows=bad_rows)
    if is_main:
        publish(settings)
    return folder


def publish(settings: TuneSettings) -> None:
    """Upload the saved model, if that is asked for. Raises what `keeptune.runs.hub.push` raises."""
    if settings.push_to_hub is not None:
        push(Path(settings.out) / MODEL, settings.push_to_hub)


def train(trainer: KeepSFTTrainer, out: Path, *, label: str, resume: bool, extra_callbacks: list[Any]) -> None:
    """Train to the end, or to a stop that says why."""
    context = context_of(trainer)
    stop = StopCallback(context)
    context.require_finite = True  # also with λ = 0
    trainer.remove_callback(PrinterCallback)
    for callback in (ProgressCallback(label, context), CheckpointCallback(), stop, *extra_callbacks):
        trainer.add_callback(callback)
    checkpoint = last_good_checkpoint(out) if resume else None
    if resume and context.host.is_main:
        logger.info(f"continuing from {checkpoint}" if checkpoint else "no checkpoint yet: starting from the base")
    if checkpoint is not None:
        check_files(checkpoint, trainer.args.process_index, trainer.args.world_size)
        check_state(checkpoint)
    try:
        with stop.on_signals(), quiet():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except Diverged as error:
        forget_checkpoint(out, trainer.state.global_step)  # its weights are those that gave this loss
        good = last_good_checkpoint(out)
        kept = f"the last good checkpoint is {good}" if good else "no checkpoint was written before it"
        raise Diverged(f"{error.what}; {kept}", error.fix) from error
    done = f"stopped after step {trainer.state.global_step} of {trainer.state.max_steps}, checkpoint kept"
    if context.stopped:
        raise BoundBroken(
            f"{done}: {context.stopped}",
            "change the run, or continue anyway: the same command with --resume and without --stop-if-forecast",
        )
    if stop.asked and trainer.state.global_step < trainer.state.max_steps:
        if trainer.args.save_only_model:
            raise Interrupted(done, "save_only_model keeps no optimizer, so it cannot continue: start with --overwrite")
        raise Interrupted(done, "run the same command with --resume to continue")


def context_of(trainer: KeepSFTTrainer) -> KeepContext:
    """The trainer's context, which every run of `keeptune tune` has: it always reads drift.

    Raises:
        UnsupportedModel: no drift can be read of the model, as the log says.
    """
    if trainer.context is None:
        raise UnsupportedModel("the drift of this model cannot be read", "tune it with TRL, or tune another model")
    return trainer.context


def tune_or_resume(settings: TuneSettings, *, label: str, extra_callbacks: list[Any] | None = None) -> Path:
    """Fine-tune, or continue an interrupted run, for commands that resume by themselves.

    Raises:
        Interrupted and others: as `tune` raises them.
    """
    resume = workspace(Path(settings.out)).claimed
    try:
        return tune(settings, resume=resume, label=label, extra_callbacks=extra_callbacks)
    except Interrupted as error:
        raise Interrupted(error.what, "run the same command again to continue") from error


def check_state(checkpoint: Path) -> None:
    """Refuse a checkpoint whose state no training can go on from.

    Raises:
        ConfigError: it holds a model only. The trainer would go on with a fresh optimizer and say nothing.
    """
    parts = {"optimizer": "optimizer*", "schedule": "scheduler.pt", "random states": "rng_state*.pth"}
    if missing := [name for name, pattern in parts.items() if not any(checkpoint.glob(pattern))]:
        raise ConfigError(
            f"{checkpoint} holds no {' and no '.join(missing)}, as with save_only_model: no run continues from it",
            "start it anew with --overwrite, without save_only_model",
        )
    state = checkpoint / TRAINER_STATE_NAME
    with damaged_json(state, f"delete {checkpoint} and run the same command again: it goes on from one before"):
        TrainerState.load_from_json(str(state))


def build_trainer(
    settings: TuneSettings,
    args: SFTConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train_rows: Dataset,
    held_out_rows: Dataset,
) -> TuneTrainer:
    """The trainer of a run.

    Raises:
        ConfigError: TRL or transformers refuse it, which may come of the table [sft].
    """
    columns = ["input_ids", "labels"]
    try:
        return TuneTrainer(
            model=model,
            args=args,
            keep=settings,
            train_dataset=train_rows.select_columns(columns),
            eval_dataset=held_out_rows.select_columns(columns),
            processing_class=tokenizer,
            peft_config=lora_config(model, settings.lora) if settings.lora else None,
        )
    except KeeptuneError:
        raise
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        if not settings.sft:
            raise
        raise refused_by_trl(error, list(settings.sft)) from error


def save(
    trainer: KeepSFTTrainer, settings: TuneSettings, dtype: torch.dtype | None = None, *, bad_rows: int = 0
) -> Path:
    """Save the tuned model or adapter with its tokenizer and card to `<out>/model`, whole or not at all.

    Its weights are saved in `dtype`, or as they were trained.
    """
    out = Path(settings.out)
    folder = out / MODEL
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")  # of shards it saves no model
    if not trainer.is_world_process_zero():
        trainer.save_model(str(folder))  # joins in gathering sharded weights, and writes nothing
        return folder
    rows = read_rows(out / FILE)
    with atomic_folder(folder) as temporary:
        trainer.save_model(str(temporary))
        saved = recast(temporary, dtype)
        make_portable(temporary)
        certificate = read_certificate(out) if settings.budget is not None else None
        pool = context_of(trainer).pool
        text = "self" if pool is None else pool.settings.text
        if settings.lora:
            record_base(temporary, folder, context_of(trainer).base)
        base = str(beside) if (beside := (out / BASE).resolve()).is_dir() else settings.model
        quantization = describe(trainer.model)
        told = card(settings, rows[0], rows[-1], certificate, text, bad_rows, base, saved, quantization)
        (temporary / "README.md").write_text(told, encoding="utf-8")
        (temporary / "training_args.bin").unlink(missing_ok=True)
    for checkpoint in out.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    return folder
