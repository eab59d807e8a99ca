"""A loss that is NaN or infinite ends the run before it reaches the weights."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from keeptune.train.context import KeepContext


class FiniteCallback(TrainerCallback):
    """Looks at the losses of a step once, after its last backward pass, so that no micro-batch waits for the device."""

    def __init__(self, context: KeepContext) -> None:
        self.context = context

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raises `Diverged` before the optimizer steps."""
        self.context.check_losses(step=state.global_step + 1)
