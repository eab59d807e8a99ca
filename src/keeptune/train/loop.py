"""The whole method in plain torch, for people with their own training loop: `KeepSFTTrainer` without a trainer.

    pool = keeptune.sample_pool(model, tokenizer, "pool", tokens=100_000)
    for reading in keep_tuning(model, batches, pool, optimizer=optimizer, steps=1000):
        print(reading)

A test holds this loop and the trainer equal. Shapes: B rows, T positions, N target tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from keeptune.models.modeling import autocast, fingerprint, head_of, hidden_states
from keeptune.objective import fused_next_token_ce
from keeptune.replay.pool import ReplayBatch, ReplayPool
from keeptune.replay.teachers import Teacher, check_holds, make_teacher
from keeptune.train.budget.controller import Budget
from keeptune.train.config import KeepConfig
from keeptune.train.finch import FinchSchedule
from keeptune.train.replay_term import replay_rows, replay_sum

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class StepReading:
    """What one optimizer step saw: means over its tokens, in nats per token."""

    step: int
    task_loss: float
    replay_loss: float
    lambda_: float
    """Weight of the replay term in this step."""


def keep_tuning(
    model: nn.Module,
    batches: Iterable[Batch],
    pool: ReplayPool,
    *,
    optimizer: torch.optim.Optimizer,
    steps: int,
    keep: KeepConfig | None = None,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    accumulate: int = 1,
    max_grad_norm: float = 1.0,
    dtype: torch.dtype = torch.float32,
    seed: int = 42,
) -> Iterator[StepReading]:
    """Fine-tune `model`, the base that wrote `pool`, with loss = CE(task) + λ · R(replay); yields after each step.

    With `keep.budget` λ is steered as in the trainer; certify the model with `keeptune.measure` on text of your own.

    Args:
        batches: micro-batches of `input_ids` and `labels` [B, T], labels −100 where no loss, not shifted.
        accumulate: micro-batches to a step; each comes with `keep.replay_rows` (default: B) replay rows.
        scheduler: of torch, or a `FinchSchedule`, which is shown each step's task loss.
        dtype: of the matrix products: bfloat16 trains under autocast.
        seed: of the order of replay rows.

    Raises:
        PoolMismatch: `model` is not the base that wrote the pool.
    """
    keep = keep or KeepConfig()
    pool.check_base(fingerprint(model))
    teacher = None
    if keep.objective != "ntp":
        kind = "hidden" if keep.teacher == "auto" else keep.teacher
        check_holds(pool, kind)
        teacher = make_teacher(kind, model, dtype)
    train_rows = pool.rows - keep.drift_rows - keep.certificate_rows(pool.rows)
    lambda_ = keep.lambda_
    budget = None if keep.budget is None else Budget(keep.budget, start=lambda_, steps=steps)
    device = next(model.parameters()).device
    stream = iter(batches)
    model.train()
    for step in range(steps):
        window = [{k: v.to(device) for k, v in next(stream).items()} for _ in range(accumulate)]
        task_tokens = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in window)
        task_total = replay_total = 0.0
        for micro, batch in enumerate(window):
            with autocast(device, dtype):
                task = task_sum(model, batch) / task_tokens
            task.backward()
            task_total += task.item()
            if lambda_ == 0.0:
                continue
            rows = keep.replay_rows or len(batch["input_ids"])
            indices = replay_rows(
                step=step, micro=micro, micros=accumulate, rank=0, world=1, rows=rows, pool_rows=train_rows, seed=seed
            )
            replay_batch = pool.batch(indices).to(device)
            with autocast(device, dtype):
                replay = replay_sum(model, replay_batch, teacher, keep.objective)
            replay = replay / (accumulate * rows * pool.settings.length)
            (lambda_ * replay).backward()
            replay_total += replay.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        if isinstance(scheduler, FinchSchedule):
            scheduler.see(task_total)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        optimizer.zero_grad()
        reading = StepReading(step + 1, task_total, replay_total, lambda_)
        if budget is not None:
            budget.update(replay_total)
            if keep.reads_after(step + 1, steps):
                held_out = pool.batch(torch.arange(train_rows, train_rows + keep.drift_rows)).to(device)
                rounds = (step + 1) * accumulate * rows / train_rows
                budget.compare(held_out_kl(model, held_out, teacher, dtype), rounds)
            lambda_ = budget.lambda_
        yield reading


@torch.no_grad()
def held_out_kl(model: nn.Module, batch: ReplayBatch, teacher: Teacher | None, dtype: torch.dtype) -> float:
    """Mean KL(base‖model) over rows that are never trained on, nats per token."""
    model.eval()
    with autocast(batch.inputs_BT.device, dtype):
        total = replay_sum(model, batch, teacher).item()
    model.train()
    return total / batch.targets_BT.numel()


def task_sum(model: nn.Module, batch: Batch) -> Tensor:
    """Σ CE over the loss-bearing tokens of a batch, in nats, differentiable."""
    targets_BT = batch["labels"][:, 1:]
    mask_BT = targets_BT != -100
    hidden_ND = hidden_states(model, batch["input_ids"])[:, :-1][mask_BT]
    return fused_next_token_ce(hidden_ND, head_of(model), targets_BT[mask_BT])
