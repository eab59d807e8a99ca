"""Readings of drift and held-out task loss during training, appended to runs.jsonl."""

from __future__ import annotations

import platform
import time
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.models.modeling import trained_by_text
from keeptune.system import versions
from keeptune.train.context import KeepContext
from keeptune.train.drift import read_drift
from keeptune.train.host.distributed import all_agree, sum_over_ranks
from keeptune.train.readings import FILE, Reading, append_row, keep_earlier_run, read_rows, rewind, saved_step

# A base that computes as it did when it wrote the pool reads less from itself.
_NOISE_FLOOR = 1e-3


class DriftCallback(TrainerCallback):
    """Takes a reading before the first step, after 1, 2, 4, 8 … steps, every `drift_every` steps and after the last.

    A row of `runs.jsonl`: `step`; `P`, tuned parameters; `N`, update steps; `L_ft`, the trainer's own evaluation loss
    where it has evaluation data with labels (`L_ft_on`: held-out), else its loss in the last step without the replay
    term (train); `L_f`, `L_f_base` and `KL` on old text
    (`L_f_on`: self, held-out rows that the base wrote; what else those of the pool are; or the name of a text); all in
    nats per token; `lambda`; `replay_tokens`, distinct ones to train on; `task_tokens` and `seconds` of training so
    far and their ratio; what made it; and what the context's listeners add, such as the `forecast` of the run's end.

    With `load_best_model_at_end` the last row is of the model that the trainer loaded: `model_step` is its step, and
    `step` the one at which the run ended.
    """

    def __init__(self, context: KeepContext) -> None:
        self.context = context
        self.path = context.host.output_dir / FILE
        self.last_row: Reading | None = None
        self._trained = False
        self._seconds = 0.0
        self._tokens_before = 0
        self._since = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read once before the first step; after a resume, drop the readings that will be taken again."""
        # A training that was broken off may have left a window unfinished.
        self.context.window, self.context.paused = None, False
        if self.context.host.is_main:
            if state.global_step:
                rewind(self.path, state.global_step)
            else:
                keep_earlier_run(self.path)
            rows = read_rows(self.path)
            self._seconds = rows[-1]["seconds"] if rows else 0.0
            self._tokens_before = rows[-1]["task_tokens"] if rows else 0
            self.last_row = rows[-1] if rows else None
        if state.global_step == 0:
            self._read(kwargs["model"], state)
            self._warn_of_noise()
        self._trained = True
        self._since = time.monotonic()

    def _warn_of_noise(self) -> None:
        if self._trained or self.context.starts_apart or self.last_row is None or self.last_row["step"] != 0:
            return
        floor = self.last_row["KL"]
        if floor > _NOISE_FLOOR and self.context.host.is_main:
            logger.warning(
                f"KL to the base's stored predictions is {floor:.4f} nats per token before the first step (expected "
                f"below {_NOISE_FLOOR:g}); drift below that is noise. The pool was probably written with another dtype "
                "or attention kernel: write it again on this machine with keeptune replay."
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read every `drift_every` steps, at the powers of two before, and at a quarter of the run."""
        window = self.context.window
        if self.context.keep.lambda_ > 0 and window is not None and window.micro < window.micros:
            raise ConfigError(
                f"the trainer computed {window.micro} losses for {window.micros} micro-batches, so part of the replay "
                "term is missing",
                "use a trainer that calls compute_loss once for every micro-batch",
            )
        if self.context.keep.reads_after(state.global_step, state.max_steps):
            self._pause_and_read(kwargs["model"], state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read after the last step, unless that was just done, or the best model, which the trainer has loaded."""
        best = saved_step(args, state)
        if best != state.global_step:
            self.context.window = None  # its losses are of another model
            self._pause_and_read(kwargs["model"], state, model_step=best)
            return
        done = self.last_row is not None and self.last_row["step"] == state.global_step and not self.context.rescaled
        if not all_agree(done, args.device):  # after a resume only the main process knows of the rows before
            self._pause_and_read(kwargs["model"], state)

    def _pause_and_read(self, model: nn.Module, state: Any, *, model_step: int | None = None) -> None:
        self._seconds += time.monotonic() - self._since
        self._read(model, state, model_step=model_step)
        self._since = time.monotonic()

    def _read(self, model: nn.Module, state: Any, *, model_step: int | None = None) -> None:
        context = self.context
        was_training = model.training
        model.eval()
        with torch.no_grad():
            drift = read_drift(context, context.drift_rows)
            finite = [context.check_finite(name, value, step=state.global_step) for name, value in drift.items()]
            task_loss = context.host.task_loss()
            finite.append(context.check_finite("L_ft", task_loss or 0.0, step=state.global_step))
            if not all(finite):
                logger.warning(f"no reading after step {state.global_step}: a measure is NaN or infinite")
                model.train(was_training)
                return
            row = self._row(model, state, drift, task_loss)
            if model_step is not None:
                row["N"] = row["model_step"] = model_step
            self.last_row = row
            for listener in context.listeners if model_step is None else ():
                listener.on_reading(row, state)
        model.train(was_training)
        if context.host.is_main:
            append_row(self.path, row)

    def _row(self, model: nn.Module, state: Any, drift: dict[str, float], task_loss: float | None) -> Reading:
        context, host, keep, seconds = self.context, self.context.host, self.context.keep, self._seconds
        tokens = self._tokens_before + host.tokens_seen()
        trains_on_replay = context.pool is not None and keep.lambda_ > 0
        row: Reading = {
            "step": state.global_step,
            "P": trained_by_text(model),
            "N": state.global_step,
            "L_ft": task_loss if task_loss is not None else self._train_loss(),
            "L_ft_on": "held-out" if task_loss is not None else "train",
            "L_f": drift["l_f"],
            "L_f_base": drift["l_f_base"],
            "L_f_on": context.drift_text,
            "KL": drift["kl"],
            "lambda": context.lambda_,
            "replay_tokens": context.train_rows * context.replay_length if trains_on_replay else 0,
            "task_tokens": tokens,
            "seconds": round(seconds, 3),
            "tokens_per_second": round(tokens / seconds, 1) if seconds and tokens else None,
            "seed": host.seed,
            "objective": keep.objective,
            "learning_rate": host.learning_rate,
            "base": context.base,
            "machine": platform.machine(),
            "device": str(host.device),
            "versions": versions(),
        }
        if keep.budget is not None:
            row["budget"] = keep.budget
        return row

    def _train_loss(self) -> float | None:
        """The last step's task loss over all processes; None before the first step."""
        host, window = self.context.host, self.context.window
        mean = None if window is None else window.mean_task()
        return None if mean is None else sum_over_ranks(mean, host.device) / host.world
