"""The trainer of `keeptune tune`: TRL's, with a warm-up whose first step learns; and its LoRA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peft import LoraConfig
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel

from keeptune.models.lora_targets import all_linear
from keeptune.runs.trial import TriedSFTTrainer
from keeptune.train.trainers import KeepSFTTrainer


def lora_config(model: PreTrainedModel, rank: int) -> LoraConfig:
    """Rank-stabilised LoRA on the linear layers of `model` but the head (Kalajdzievski 2023, arXiv 2312.03732)."""
    return all_linear(model, r=rank, lora_alpha=16, use_rslora=True, task_type="CAUSAL_LM")


class TuneTrainer(KeepSFTTrainer, TriedSFTTrainer):
    """`KeepSFTTrainer` that refuses what TRL cannot train at once, and whose first step has a learning rate above 0.

    The warm-ups of transformers start at 0, so that the first step changes nothing: a run of one step, nothing at all.
    Here step s of S has the rate that transformers gives step s + 1 of S + 1, so that the last step learns too.
    """

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The parent's schedule, a step ahead if it starts at 0."""
        trainer: Any = self
        asked, warmup = trainer.args.warmup_steps, trainer.args.get_warmup_steps(num_training_steps)
        if trainer.lr_scheduler is not None or not warmup:
            return super().create_scheduler(num_training_steps, optimizer)
        trainer.args.warmup_steps = warmup  # a share would be taken of one step more
        scheduler = super().create_scheduler(num_training_steps + 1, optimizer)
        trainer.args.warmup_steps = asked
        if isinstance(scheduler, LambdaLR) and not any(scheduler.get_last_lr()):
            ahead = [_ahead(rate) for rate in scheduler.lr_lambdas]
            trainer.lr_scheduler = LambdaLR(scheduler.optimizer, ahead)
        return trainer.lr_scheduler


def _ahead(rate: Callable[[int], float]) -> Callable[[int], float]:
    return lambda step: rate(step + 1)
