"""The progress bar of a run: steps, losses, λ, and where the forecast says the run will end."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from transformers import TrainerCallback

from keeptune.log import Task, track
from keeptune.train.context import KeepContext


class ProgressCallback(TrainerCallback):
    """A bar of steps with time left, task loss, replay loss, and where the forecast says the run will end."""

    def __init__(self, label: str, context: KeepContext) -> None:
        self.label = label
        self.context = context
        self._stack = ExitStack()
        self._task: Task | None = None
        self._note = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar."""
        if state.is_world_process_zero:
            self._task = self._stack.enter_context(track(self.label, state.max_steps, "steps"))
            self._task.skip(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Remember what the losses are."""
        shown = {"loss": "loss", "replay_kl": "replay KL", "replay_ntp": "replay CE", "lambda": "λ"}
        note = "  ".join(f"{name} {logs[key]:.4f}" for key, name in shown.items() if logs and key in logs)
        self._note = note or self._note  # a log of readings alone has none of them

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """One step on."""
        if self._task is not None:
            self._task.advance(1, note="  ".join(filter(None, (self._note, self.context.forecast_note))))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        self._stack.close()
