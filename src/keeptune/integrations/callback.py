"""Readings of drift in any host that takes callbacks of transformers' Trainer, such as LLaMA-Factory.

    from keeptune.integrations.callback import DriftReadings
    from llamafactory.train.tuner import run_exp

    run_exp(arguments, callbacks=[DriftReadings()])

A callback sees the model and no loss, so it cannot add the replay term: for that the host must let its trainer be
replaced, as Axolotl and ms-swift do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from keeptune.errors import ConfigError
from keeptune.models.adapters import has_adapter, moved_base
from keeptune.models.modeling import autocast, head_of
from keeptune.train.base import Given, require_language_model
from keeptune.train.callbacks.drift import DriftCallback
from keeptune.train.callbacks.forecast import ForecastCallback
from keeptune.train.config import DRIFT_EVERY, KeepConfig
from keeptune.train.context import Host
from keeptune.train.prepare import prepare


class DriftReadings(TrainerCallback):
    """Reads drift from the base during training and forecasts where it ends, without changing the training.

    Before the first step the base writes a small pool of its own text into the output folder (not with `drift_text`);
    readings go to `<output_dir>/runs.jsonl`, as those of keeptune's trainers do.

    Args:
        keep: settings with `lambda_=0`; by default a reading every 20 steps.

    Raises:
        ConfigError: settings that need the replay term; at the start of training also a model that is sharded, a
            resumed full fine-tuning, or an adapter whose initialization has changed the base.
    """

    def __init__(self, keep: KeepConfig | None = None) -> None:
        self.keep = keep or KeepConfig(lambda_=0.0, drift_every=DRIFT_EVERY)
        self._callbacks: list[TrainerCallback] = []
        if self.keep.lambda_ > 0:
            raise ConfigError(
                f"a callback cannot add the replay term to a loss, and lambda is {self.keep.lambda_:g}",
                "set lambda_=0 to read drift, or train with KeepSFTTrainer, Axolotl or ms-swift",
            )

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Prepare the readings while the model is still the base, and take the first."""
        model = kwargs["model"]
        _require_base(model, args, state)
        # The pool is sampled between the trainer's seeding and its first batch: training must not notice.
        with torch.random.fork_rng():
            context = prepare(model, _host_of(model, args, kwargs), self.keep, Given())
        forecast = ForecastCallback(context)
        context.listeners.append(forecast)
        self._callbacks = [DriftCallback(context), forecast]
        self._pass_on("on_train_begin", args, state, control, kwargs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read where `keep` says so."""
        self._pass_on("on_step_end", args, state, control, kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read after the last step."""
        self._pass_on("on_train_end", args, state, control, kwargs)

    def _pass_on(self, event: str, args: Any, state: Any, control: Any, kwargs: Mapping[str, object]) -> None:
        for callback in self._callbacks:
            getattr(callback, event)(args, state, control, **kwargs)


def _require_base(model: nn.Module, args: Any, state: Any) -> None:
    """Refuse a model that is not whole on this process, or from which the base cannot be recovered."""
    require_language_model(model)
    if args.fsdp or args.deepspeed:
        raise ConfigError(
            "readings by a callback need the whole model on each process, and FSDP or DeepSpeed shards it",
            "train with keeptune's trainers, or leave the callback out and run keeptune audit afterwards",
        )
    if state.global_step and not has_adapter(model):
        raise ConfigError(
            f"this run resumes full fine-tuning at step {state.global_step}, and the base is no longer in memory",
            "leave the callback out and run keeptune audit afterwards",
        )
    if moved := moved_base(model):
        raise ConfigError(f"drift needs the base, and {moved}", "use an adapter that starts as LoRA's default does")


def _host_of(model: nn.Module, args: Any, given: Mapping[str, object]) -> Host:
    """What the trainer around the callback decides; a callback is told no loss of held-out rows."""
    half = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None
    dtype = half or head_of(model).weight_VD.dtype
    processor = given.get("processing_class") or given["tokenizer"]

    def call(compute: Any) -> Any:
        with autocast(args.device, dtype):
            return compute(model)

    return Host(
        device=args.device,
        dtype=dtype,
        rank=args.process_index,
        world=args.world_size,
        sharded=False,
        output_dir=Path(args.output_dir),
        seed=args.seed,
        learning_rate=args.learning_rate,
        rows=args.per_device_train_batch_size,
        accumulate=args.gradient_accumulation_steps,
        tokenizer=getattr(processor, "tokenizer", None) or processor,
        call=call,
        task_loss=lambda: None,
        scheduler=lambda: given.get("lr_scheduler"),
        tokens_seen=lambda: 0,
    )
