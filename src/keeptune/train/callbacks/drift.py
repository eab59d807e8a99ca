"""The meter in the loop: every few steps, held-out task loss and drift on held-out replay, appended to runs.jsonl."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from keeptune.audit.meter import MEASURES, token_drift
from keeptune.log import logger
from keeptune.models.modeling import head_of, hidden_states
from keeptune.objective import fused_next_token_ce
from keeptune.replay.pool import ReplayBatch
from keeptune.system import versions
from keeptune.train.readings import FILE, append_row, read_rows, rewind

if TYPE_CHECKING:
    from keeptune.train.trainer import KeepSFTTrainer

_ROWS_AT_ONCE = 16
# A base that computes as it did when it wrote the pool reads less from itself.
_FLOOR = 1e-3


class MeterCallback(TrainerCallback):
    """Takes a reading before the first step, after 1, 2, 4, 8 … of them, every `drift_every` steps and after the last.

    A row of `runs.jsonl`: `step`; `P`, tuned parameters; `N`, update steps; `L_ft`, task loss, on the evaluation data
    set where the trainer has one (`L_ft_on`: held-out, else train); `L_f`, `L_f_base` and `KL` on old text (`L_f_on`:
    self, held-out rows that the base wrote; what else those of the pool are; or the name of a text); all in nats per
    token; `lambda`; `replay_tokens`, distinct ones to train on; `task_tokens` and `seconds` of training so far and
    their ratio; what made it; and the `forecast` of the run's end (`keeptune.train.callbacks.forecast.forecast_row`).
    """

    def __init__(self, trainer: KeepSFTTrainer) -> None:
        self.trainer = trainer
        self.path = Path(trainer.args.output_dir) / FILE
        self.last_row: dict[str, Any] | None = None
        self._seconds = 0.0
        self._tokens_before = 0
        self._since = 0.0
        self._provenance = {
            "seed": trainer.args.seed,
            "objective": trainer.keep.objective,
            "learning_rate": trainer.args.learning_rate,
            "base": trainer.base_fingerprint,
            "machine": platform.machine(),
            "device": str(trainer.args.device),
            "versions": versions(),
        }
        if trainer.keep.budget is not None:
            self._provenance["budget"] = trainer.keep.budget

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read once before the first step; after a resume, drop the readings that will be taken again."""
        if self.trainer.is_world_process_zero():
            rewind(self.path, state.global_step or -1)
            rows = read_rows(self.path)
            self._seconds = rows[-1]["seconds"] if rows else 0.0
            self._tokens_before = rows[-1]["task_tokens"] if rows else 0
            self.last_row = rows[-1] if rows else None
        if state.global_step == 0:
            self._read(state)
            self._tell_floor()
        self._since = time.monotonic()

    def _tell_floor(self) -> None:
        floor = self.last_row["KL"] if self.last_row is not None else 0.0
        if floor > _FLOOR and self.trainer.is_world_process_zero():
            logger.warning(
                f"the base reads a KL of {floor:.4f} nats per token from its own stored predictions: drift below that "
                "is noise. The pool was written by other arithmetic; write it on this machine, with keeptune replay"
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read every `drift_every` steps, at the powers of two before, and at a tenth of the run."""
        if self.trainer.keep.reads_after(state.global_step, state.max_steps):
            self._pause_and_read(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read after the last step, unless that was just done."""
        if self.last_row is None or self.last_row["step"] != state.global_step:
            self._pause_and_read(state)

    def _pause_and_read(self, state: Any) -> None:
        self._seconds += time.monotonic() - self._since
        self._read(state)
        self._since = time.monotonic()

    def _read(self, state: Any) -> None:
        trainer = self.trainer
        model = trainer.model
        was_training = model.training
        model.eval()
        with torch.no_grad():
            drift = trainer.inside(trainer.model_wrapped, lambda inner: read_drift(inner, trainer, trainer.meter_batch))
            for name, value in drift.items():
                trainer.require_finite(name, value, step=state.global_step)
            if trainer.steering is not None:
                trainer.steering.read(drift, state)
            task_loss = trainer.inside(trainer.model_wrapped, lambda inner: read_task_loss(inner, trainer))
            trainer.require_finite("L_ft", task_loss or 0.0, step=state.global_step)
        model.train(was_training)
        tokens = self._tokens_before + trainer._total_train_tokens
        row = {
            "step": state.global_step,
            "P": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "N": state.global_step,
            "L_ft": task_loss if task_loss is not None else _last_train_loss(state),
            "L_ft_on": "held-out" if task_loss is not None else "train",
            "L_f": drift["l_f"],
            "L_f_base": drift["l_f_base"],
            "L_f_on": trainer.keep.drift_text or trainer.pool.settings.text,
            "KL": drift["kl"],
            "lambda": trainer.lambda_,
            "replay_tokens": trainer.train_rows * trainer.pool.settings.length if trainer.keep.lambda_ else 0,
            "task_tokens": tokens,
            "seconds": round(self._seconds, 3),
            "tokens_per_second": round(tokens / self._seconds, 1) if self._seconds and tokens else None,
            **self._provenance,
        }
        self.last_row = row
        if trainer.is_world_process_zero():
            row["forecast"] = trainer.forecast.of([*read_rows(self.path), row], state.max_steps)
            append_row(self.path, row)


def _last_train_loss(state: Any) -> float | None:
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    return losses[-1] if losses else None


def read_drift(model: nn.Module, trainer: KeepSFTTrainer, batch: ReplayBatch) -> dict[str, float]:
    """Means over a batch that holds the base's hidden states, nats per token."""
    sums_M = torch.zeros(len(MEASURES), dtype=torch.float64)
    for values_NM in drift_of_tokens(model, trainer, batch):
        sums_M += values_NM.sum(dim=0).cpu()
    means = (sums_M / batch.targets_BT.numel()).tolist()
    return dict(zip(MEASURES, means, strict=True))


def drift_of_tokens(model: nn.Module, trainer: KeepSFTTrainer, batch: ReplayBatch) -> Iterator[Tensor]:
    """The measures at every target of a batch, [N, M], a few rows at a time."""
    device = trainer.args.device
    head = head_of(model)
    for inputs_BT, targets_BT, hidden_BTD in zip(
        batch.inputs_BT.split(_ROWS_AT_ONCE),
        batch.targets_BT.split(_ROWS_AT_ONCE),
        batch.hidden_BTD.split(_ROWS_AT_ONCE),
        strict=True,
    ):
        tuned_ND = hidden_states(model, inputs_BT.to(device)).flatten(0, 1).to(hidden_BTD.dtype)
        yield token_drift(
            tuned_ND,
            head,
            hidden_BTD.flatten(0, 1).to(device),
            trainer.teacher_head,
            targets_BT.flatten().to(device),
            dtype=trainer.compute_dtype,
        )


def read_task_loss(model: nn.Module, trainer: KeepSFTTrainer) -> float | None:
    """Cross-entropy over the loss-bearing tokens of the evaluation data set; None where there is none.

    Every rank reads all of it: a sharded loader repeats rows to fill its last batches.
    """
    if trainer.eval_dataset is None:
        return None
    total, count = 0.0, 0
    head = head_of(model)
    rows = trainer.args.per_device_eval_batch_size
    # A loader draws a seed, and the global generator belongs to training: without this, reading would change dropout.
    own = torch.Generator()
    for batch in DataLoader(trainer.eval_dataset, batch_size=rows, collate_fn=trainer.data_collator, generator=own):
        batch = {
            key: batch[key].to(trainer.args.device) for key in ("input_ids", "labels", "position_ids") if key in batch
        }
        labels_BT = batch["labels"]
        mask_BT: Tensor = labels_BT[:, 1:] != -100
        hidden_ND = hidden_states(model, batch["input_ids"], batch.get("position_ids"))[:, :-1][mask_BT]
        total += fused_next_token_ce(hidden_ND, head, labels_BT[:, 1:][mask_BT]).item()
        count += int(mask_BT.sum())
    return total / count if count else None
