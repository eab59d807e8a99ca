"""FINCH, a schedule that takes smaller steps while the task loss is high (Prashant et al. 2026, arXiv 2605.20005).

One step forgets at most C₁·η·√L + C₂·η²·L at learning rate η and task loss L, in nats per token. So

    η_i = min(κ / √(L̄_i + ε), η_max),    L̄_i = .9·L̄_{i−1} + .1·L_i,    L̄_0 = L_0

with the peak rate η_max and κ = start · η_max · √(L̄_0 + ε): the first step has `start` of the peak rate, and the rate
reaches the peak when the loss has fallen to start² of its first value. On small decoders it took 8 % off the
forgetting (lab/method_comparison), where replay takes 97 %: use it only where no replay term is possible.

python recipes/finch.py                     # SmolLM2-135M on Verilog with TRL, CPU-sized
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch
import torch.distributed as dist
from torch.optim.lr_scheduler import LRScheduler
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from keeptune import KeepConfig, KeepMixin, load_documents, load_model, load_tokenizer

MEMORY = 0.9
EPSILON = 1e-8


class FinchSchedule(LRScheduler):
    """The schedule as a torch scheduler: call `see(task_loss)` before each optimizer step and `step()` after it.

    Its state is plain numbers, so a run resumed from `state_dict` takes the same steps. With `keeptune.keep_tuning`:
    `before_step=lambda reading: schedule.see(reading.task_loss)`.

    Args:
        optimizer: its learning rates are the peak rates η_max.
        start: the share of the peak that the first step has, above 0 and at most 1.
        warmup_steps: linear warm-up from 0, as in transformers.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, start: float, warmup_steps: int = 0) -> None:
        if not 0.0 < start <= 1.0:
            raise ValueError(f"start is {start}, and it is a fraction of the peak learning rate: set it to 0.5, say")
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
        """The learning rate of each parameter group."""
        share = self.start
        if self.first_loss is not None and self.mean_loss is not None:
            share = min(1.0, self.start * math.sqrt((self.first_loss + EPSILON) / (self.mean_loss + EPSILON)))
        warm = min(1.0, self.last_epoch / self.warmup_steps) if self.warmup_steps else 1.0
        return [peak * share * warm for peak in self.base_lrs]


class _ShowLoss(TrainerCallback):
    """Shows the schedule the task loss of each step, the same on all processes."""

    def __init__(self, trainer: FinchMixin) -> None:
        self.trainer = trainer

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.losses.clear()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        loss = torch.stack(self.trainer.losses).double().sum()
        if dist.is_initialized():
            dist.all_reduce(loss)
            loss /= dist.get_world_size()
        self.trainer.lr_scheduler.see(loss.item())


class FinchMixin:
    """Gives a trainer the schedule; behind `KeepMixin` it sees the task loss without the replay term."""

    lr_scheduler: Any

    def __init__(self, *args: Any, finch: float = 0.5, **kwargs: Any) -> None:
        self.finch = finch
        self.losses: list[torch.Tensor] = []
        super().__init__(*args, **kwargs)
        self.add_callback(_ShowLoss(self))  # type: ignore[attr-defined]

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        trainer: Any = self
        if self.lr_scheduler is None:
            warmup = trainer.args.get_warmup_steps(num_training_steps)
            peaks = optimizer or trainer.optimizer
            self.lr_scheduler = FinchSchedule(peaks, start=self.finch, warmup_steps=warmup)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        if model.training:
            micros = self.current_gradient_accumulation_steps if num_items_in_batch is None else 1  # type: ignore
            self.losses.append((result[0] if return_outputs else result).detach() / micros)
        return result


class FinchKeepSFTTrainer(KeepMixin, FinchMixin, SFTTrainer):
    """`trl.SFTTrainer` with the replay term and FINCH's schedule."""


def main() -> None:
    """A short run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--data", default="verilog")
    parser.add_argument("--out", default="runs/finch")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--start", type=float, default=0.5, help="share of the peak learning rate in the first step")
    parser.add_argument("--lambda", dest="lambda_", type=float, default=1.0)
    parser.add_argument("--replay-tokens", type=int, default=16_384)
    arguments = parser.parse_args()
    trainer = FinchKeepSFTTrainer(
        model=load_model(arguments.model),
        processing_class=load_tokenizer(arguments.model),
        train_dataset=load_documents(arguments.data),
        args=SFTConfig(
            output_dir=arguments.out,
            max_steps=arguments.steps,
            max_length=128,
            learning_rate=1e-4,
            per_device_train_batch_size=8,
            gradient_checkpointing=False,
            use_cpu=not torch.accelerator.is_available(),
        ),
        finch=arguments.start,
        keep=KeepConfig(lambda_=arguments.lambda_, replay_tokens=arguments.replay_tokens),
    )
    trainer.train()
    trainer.save_model(f"{arguments.out}/model")


if __name__ == "__main__":
    main()
