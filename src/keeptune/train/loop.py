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

from keeptune.objective import fused_next_token_ce
from keeptune.replay.pool import ReplayPool
from keeptune.replay.precision import autocast
from keeptune.replay.teacher import TeacherKind, check_holds, make_teacher
from keeptune.replay.view import fingerprint, head_of, hidden_states
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
    if keep.objective == "kl":
        kind: TeacherKind = "hidden" if keep.teacher == "auto" else keep.teacher
        check_holds(pool, kind)
        teacher = make_teacher(kind, model, dtype)
    train_rows = pool.rows - keep.meter_rows
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
            if keep.lambda_ == 0.0:
                continue
            rows = keep.replay_rows or len(batch["input_ids"])
            indices = replay_rows(
                step=step, micro=micro, micros=accumulate, rank=0, world=1, rows=rows, pool_rows=train_rows, seed=seed
            )
            replay_batch = pool.batch(indices).to(device)
            with autocast(device, dtype):
                replay = replay_sum(model, replay_batch, teacher)
            replay = replay / (accumulate * rows * pool.settings.length)
            (keep.lambda_ * replay).backward()
            replay_total += replay.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        if isinstance(scheduler, FinchSchedule):
            scheduler.see(task_total)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        optimizer.zero_grad()
        yield StepReading(step + 1, task_total, replay_total)


def task_sum(model: nn.Module, batch: Batch) -> Tensor:
    """Σ CE over the loss-bearing tokens of a batch, in nats, differentiable."""
    targets_BT = batch["labels"][:, 1:]
    mask_BT = targets_BT != -100
    hidden_ND = hidden_states(model, batch["input_ids"])[:, :-1][mask_BT]
    return fused_next_token_ce(hidden_ND, head_of(model), targets_BT[mask_BT])
