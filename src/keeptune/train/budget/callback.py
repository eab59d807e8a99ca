"""A budget in a trainer: λ moved by what each step saw, the weights scaled at the end, and the certificate.

All of it is alike on all processes and over resumes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.storage import write_json
from keeptune.train.budget.certificate import FILE, certify, describe
from keeptune.train.budget.controller import LambdaController
from keeptune.train.budget.scale import scale_change, scale_to
from keeptune.train.context import KeepContext
from keeptune.train.drift import read_drift
from keeptune.train.host.distributed import sum_over_ranks
from keeptune.train.readings import Reading, saved_step

# The name under which checkpoints have kept the state since the first version.
_STATE = "keeptune_budget"


class BudgetCallback(TrainerCallback):
    """Moves the context's λ after every optimizer step, scales the last one's change, and certifies the finished model.

    The controller's state travels in the checkpoint's trainer_state.json, which is written whole or not at all.
    """

    def __init__(self, context: KeepContext, budget: float) -> None:
        self.context = context
        self.budget = budget
        self._controller: LambdaController | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start, or go on from the checkpoint's state."""
        controller = LambdaController(self.budget, start=self.context.keep.first_lambda, steps=state.max_steps)
        if state.global_step:
            if _STATE not in state.stateful_callbacks:
                raise ConfigError(
                    "the checkpoint was written without a budget", "resume it without one, or start a new run"
                )
            controller.restore(state.stateful_callbacks[_STATE])
        self._controller = controller
        self.context.lambda_ = controller.lambda_

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move λ by the step's replay KL over all processes."""
        controller, window = self._started(), self.context.window
        kl = 0.0 if window is None else window.mean_replay(self.context.host.world)
        controller.update(sum_over_ranks(kl, args.device))
        self.context.lambda_ = controller.lambda_
        if state.global_step >= state.max_steps:
            self._scale(kwargs["model"])
        state.stateful_callbacks[_STATE] = controller.export()

    def on_reading(self, row: Reading, state: Any) -> None:
        """Tell the controller the KL of rows that are never trained on: the reading's, unless it is of another text."""
        context, controller = self.context, self._started()
        kl = row["KL"] if context.budget_rows is None else read_drift(context, context.budget_rows)["kl"]
        host = context.host
        rows = state.global_step * host.accumulate * host.world * context.replay_rows
        # Each process has read all rows; the mean is one number even where their arithmetic differs.
        controller.compare(sum_over_ranks(kl, host.device) / host.world, rounds=rows / context.train_rows)
        state.stateful_callbacks[_STATE] = controller.export()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Certify the finished model, also where another callback stopped early; a paused run goes on instead."""
        if self.context.paused:
            return
        model, controller = kwargs["model"], self._started()
        if not controller.state.scale or saved_step(args, state) != state.global_step:
            self._scale(model)  # stopped early, or the best model was loaded
            self.context.rescaled = True
        was_training = model.training
        model.eval()
        with torch.no_grad():
            certificate = certify(self.context, step=saved_step(args, state), scale=controller.state.scale)
        model.train(was_training)
        if state.is_world_process_zero:
            write_json(Path(args.output_dir) / FILE, certificate.as_dict())
            logger.info(describe(certificate))

    def _scale(self, model: Any) -> None:
        """Scale the change of the weights so that KL is what the budget aims at."""
        context, state = self.context, self._started().state
        batch, host, was_training = context.scale_rows, context.host, model.training
        state.scale = 1.0
        if batch is None or not context.start_weights:
            why = "the weights are sharded" if batch is not None else "the pool has too few rows"
            logger.info(f"the change of the weights is not scaled to the budget: {why}")
            return

        def change(by: float) -> None:
            host.call(lambda inner: scale_change(inner, context.start_weights, by))

        def read() -> float:
            return sum_over_ranks(read_drift(context, batch)["kl"], host.device) / host.world

        model.eval()
        with torch.no_grad():
            state.scale = scale_to(change, read, self.budget)
        model.train(was_training)

    def _started(self) -> LambdaController:
        if self._controller is None:
            raise RuntimeError("λ moves only during training")
        return self._controller
