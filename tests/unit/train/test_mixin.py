"""What the mixin adds to a trainer's log, and the order of its callbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from keeptune.errors import Diverged
from keeptune.replay.pool import ReplayPool
from keeptune.train.budget.callback import BudgetCallback
from keeptune.train.callbacks.drift import DriftCallback
from keeptune.train.callbacks.finite import FiniteCallback
from keeptune.train.callbacks.forecast import ForecastCallback
from keeptune.train.context import KeepContext
from tests.helpers.trainers import KINDS
from tests.helpers.training import keep


def test_a_budget_moves_lambda_before_a_reading_tells_it(tmp_path: Path, pool: ReplayPool) -> None:
    trainer = KINDS["SFT"].make(tmp_path, keep(pool, budget=0.1, drift_rows=2))
    ours = (BudgetCallback, DriftCallback, ForecastCallback)
    order = [type(callback) for callback in trainer.callback_handler.callbacks if isinstance(callback, ours)]
    assert order == list(ours)
    assert [type(listener) for listener in trainer.context.listeners] == [BudgetCallback, ForecastCallback]


@pytest.mark.parametrize("every", [1, 2])
def test_the_log_has_the_mean_replay_term_of_its_steps(tmp_path: Path, pool: ReplayPool, every: int) -> None:
    settings = keep(pool, budget=0.1, drift_rows=2, drift_every=1)
    trainer = KINDS["SFT"].make(tmp_path, settings, max_steps=4, logging_steps=every, gradient_accumulation_steps=2)
    steps: list[tuple[float, float]] = []
    trainer.context.listeners.append(Remembers(trainer.context, steps))
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "replay_kl" in entry]
    assert len(logged) == 4 // every
    for number, entry in enumerate(logged):
        part = steps[number * every : (number + 1) * every]
        assert entry["replay_kl"] == pytest.approx(sum(kl for kl, _ in part) / every)
        assert entry["lambda"] == pytest.approx(sum(weight for _, weight in part) / every)


@pytest.mark.parametrize("called", [True, False])
def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, pool: ReplayPool, called: bool) -> None:
    """Before the optimizer steps; in a host that calls nothing there, before the next step."""
    trainer = KINDS["SFT"].make(tmp_path, keep(pool, drift_every=0), max_steps=4)
    trainer.context.require_finite = True
    if not called:
        trainer.remove_callback(FiniteCallback)
    trainer.add_callback(Breaks())
    with pytest.raises(Diverged, match="the loss became nan at step 1"):
        trainer.train()
    assert trainer.state.global_step == (0 if called else 1)


class Breaks(TrainerCallback):
    """After the first reading a weight is no number."""

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        with torch.no_grad():
            next(model.parameters()).fill_(float("nan"))


class Remembers:
    """A listener: what each step's window said, at the reading after it."""

    def __init__(self, context: KeepContext, steps: list[tuple[float, float]]) -> None:
        self.context, self.steps = context, steps

    def on_reading(self, row: dict[str, object], state: object) -> None:
        if self.context.window is not None:
            self.steps.append((self.context.window.mean_replay(), self.context.window.lambda_))
