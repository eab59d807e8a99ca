"""FINCH: a smaller step while the task loss is high (Prashant et al. 2026, arXiv 2605.20005).

What one step forgets is at most C₁·η·√L + C₂·η²·L at learning rate η and task loss L, in nats per token. So

    η_i = min(κ / √(L̄_i + ε), η_max),    L̄_i = .9·L̄_{i−1} + .1·L_i,    L̄_0 = L_0.

Here η_max is the peak learning rate and κ = start · η_max · √(L̄_0 + ε): the first step, whose loss is the base's own,
is `start` of the peak, and the step has grown to the peak when the loss has fallen to start² of where it began. At
start = ½ the run begins with the mean step of the cosine schedule that it replaces.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.optim.lr_scheduler import LRScheduler
from transformers import TrainerCallback

if TYPE_CHECKING:
    from keeptune.train.trainer import KeepSFTTrainer

MEMORY = 0.9
EPSILON = 1e-8


class FinchSchedule(LRScheduler):
    """The schedule as a torch scheduler: `see(task_loss)` before each optimizer step, `step()` after it.

    Its state is plain numbers, so that a run that goes on from `state_dict` takes the very steps it would have taken.

    Args:
        optimizer: its learning rates are the peaks η_max.
        start: the share of the peak that the first step has, over 0 and at most 1.
        warmup_steps: linear warm-up from 0, as transformers does it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, start: float, warmup_steps: int = 0) -> None:
        self.start = start
        self.warmup_steps = warmup_steps
        self.first_loss: float | None = None
        self.mean_loss: float | None = None
        super().__init__(optimizer)

    def see(self, task_loss: float) -> None:
        """Set the learning rate of the coming step from the task loss (nats per token) that gave its gradient."""
        if self.first_loss is None or self.mean_loss is None:
            self.first_loss = self.mean_loss = task_loss
        else:
            self.mean_loss = MEMORY * self.mean_loss + (1 - MEMORY) * task_loss
        self._last_lr = self.get_lr()
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate

    def get_lr(self) -> list[Any]:
        """The learning rate of each group by what has been seen."""
        share = self.start
        if self.first_loss is not None and self.mean_loss is not None:
            share = min(1.0, self.start * math.sqrt((self.first_loss + EPSILON) / (self.mean_loss + EPSILON)))
        warm = min(1.0, self.last_epoch / self.warmup_steps) if self.warmup_steps else 1.0
        return [peak * share * warm for peak in self.base_lrs]


class FinchCallback(TrainerCallback):
    """Shows a trainer's `FinchSchedule` the task loss of each step, the same on all ranks."""

    def __init__(self, trainer: KeepSFTTrainer) -> None:
        self.trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forget the losses of the step before, also of one that failed."""
        self.trainer.window_losses.clear()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The gradients are there, the step is not taken."""
        loss = torch.stack(self.trainer.window_losses).double().sum()
        if dist.is_initialized():
            dist.all_reduce(loss)
            loss /= dist.get_world_size()
        self.trainer.lr_scheduler.see(loss.item())
