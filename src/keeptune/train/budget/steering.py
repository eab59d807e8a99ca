"""λ steered in the trainer: the budget's controller is told what each step saw, alike on all ranks and over resumes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import TrainerCallback

from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.storage import write_json
from keeptune.train.budget.certificate import FILE, certify, in_words
from keeptune.train.budget.controller import Budget
from keeptune.train.callbacks.drift import read_drift
from keeptune.train.distributed import sum_over_ranks

if TYPE_CHECKING:
    from keeptune.train.trainer import KeepSFTTrainer

_STATE = "keeptune_budget"


class SteeringCallback(TrainerCallback):
    """Moves λ after every optimizer step, and certifies the finished model.

    The controller's state travels in the checkpoint's trainer_state.json, which is written whole or not at all.
    """

    def __init__(self, trainer: KeepSFTTrainer, budget: float, model: nn.Module, certificate_rows: int) -> None:
        self.trainer = trainer
        self._bound = budget
        keep = trainer.keep
        self._certificate = trainer.held_out(model, keep.drift_rows, certificate_rows)
        self._own = None if keep.drift_text is None else trainer.held_out(model, 0, keep.drift_rows)
        self._budget: Budget | None = None
        self._window_kl = 0.0

    @property
    def lambda_(self) -> float:
        """The weight of the replay term in the step to come."""
        return self._budget.lambda_ if self._budget is not None else self.trainer.keep.lambda_

    def saw(self, kl: float) -> None:
        """Count a micro-batch's share of the mean replay KL of its window over all ranks."""
        self._window_kl += kl

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start, or go on from the checkpoint's state."""
        self._budget = Budget(self._bound, start=self.trainer.keep.lambda_, steps=state.max_steps)
        self._window_kl = 0.0
        if state.global_step:
            if _STATE not in state.stateful_callbacks:
                raise ConfigError(
                    "the checkpoint was written without a budget", "resume it without one, or start a new run"
                )
            self._budget.restore(state.stateful_callbacks[_STATE])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move λ by the KL of the window, over all ranks."""
        budget = self._started()
        budget.update(sum_over_ranks(self._window_kl, args.device))
        self._window_kl = 0.0
        state.stateful_callbacks[_STATE] = budget.export()

    def read(self, drift: dict[str, float], state: Any) -> None:
        """Tell the controller the KL of rows that are never trained on: the meter's, unless it reads another text."""
        trainer, budget, own = self.trainer, self._started(), self._own
        if own is not None:
            drift = trainer.inside(trainer.model_wrapped, lambda inner: read_drift(inner, trainer, own))
        ranks = trainer.accelerator.num_processes
        rows = state.global_step * trainer.args.gradient_accumulation_steps * ranks * trainer.replay_rows_at_once
        # Each rank has read all rows; the mean is one number even where their arithmetic differs.
        held_out_kl = sum_over_ranks(drift["kl"], trainer.args.device) / ranks
        budget.compare(held_out_kl, rounds=rows / trainer.train_rows)
        state.stateful_callbacks[_STATE] = budget.export()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Certify the finished model; a stopped run goes on instead."""
        if state.global_step < state.max_steps:
            return
        certificate = certify(self.trainer, self._certificate)
        if state.is_world_process_zero:
            write_json(Path(args.output_dir) / FILE, certificate)
            logger.info(in_words(certificate))

    def _started(self) -> Budget:
        if self._budget is None:
            raise RuntimeError("λ is steered while training only")
        return self._budget
