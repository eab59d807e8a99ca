"""The whole method in plain torch, for people with their own training loop: `KeepSFTTrainer` without a trainer.

    pool = keeptune.sample_pool(model, tokenizer, "pool", tokens=100_000)
    for reading in keep_tuning(model, batches, pool, optimizer=optimizer, steps=1000):
        print(reading)

A test holds this loop and the trainer equal. Shapes: B rows, T positions, N target tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice, zip_longest

import torch
from torch import Tensor, nn

from keeptune.data.rows import SEED
from keeptune.models.modeling import autocast, fingerprint, head_of, hidden_states
from keeptune.models.quantized import settle
from keeptune.objective import fused_next_token_ce
from keeptune.replay.batch import ReplayBatch
from keeptune.replay.pool import ReplayPool
from keeptune.replay.teachers import Teacher, check_holds, make_teacher
from keeptune.train.budget.controller import LambdaController
from keeptune.train.budget.scale import scale_change, scale_to, trainable_weights
from keeptune.train.config import KeepConfig
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
    seed: int = SEED,
    before_step: Callable[[StepReading], None] | None = None,
) -> Iterator[StepReading]:
    """Fine-tune `model`, the base that wrote `pool`, with loss = CE(task) + λ · R(replay); yields after each step.

    With `keep.budget` λ moves as in the trainer; certify the model with `keeptune.measure` on text of your own.

    Args:
        batches: micro-batches of `input_ids` and `labels` [B, T], labels −100 where no loss, not shifted. Training ends
            when they do.
        steps: optimizer steps at most.
        accumulate: micro-batches of a step; each comes with `keep.replay_rows` (default: B) replay rows.
        dtype: of the matrix products: bfloat16 trains under autocast.
        seed: of the order of replay rows.
        before_step: is given the step's reading before the optimizer steps, for schedules that depend on the loss.

    Raises:
        PoolMismatch: `model` is not the base that wrote the pool.
    """
    keep = keep or KeepConfig()
    settle(model)
    pool.check_base(fingerprint(model))
    teacher = loop_teacher(model, pool, keep, dtype)
    scale_rows, lambda_ = keep.scale_rows(pool.rows), keep.first_lambda
    train_rows = pool.rows - keep.drift_rows - scale_rows - keep.certificate_rows(pool.rows)
    start = {} if keep.budget is None else trainable_weights(model)
    controller = None if keep.budget is None else LambdaController(keep.budget, start=lambda_, steps=steps)
    device = next(model.parameters()).device
    order = partial(replay_rows, micros=accumulate, rank=0, world=1, pool_rows=train_rows, seed=seed)
    model.train()
    for step, window in enumerate(islice(windows(batches, accumulate, device), steps)):
        rows = keep.replay_rows or len(window[0]["input_ids"])
        micros = range(len(window) if lambda_ > 0 else 0)
        replay = [pool.batch(order(step=step, micro=micro, rows=rows)).to(device) for micro in micros]
        losses = accumulate_gradients(model, window, replay, lambda_, teacher, keep.objective, dtype)
        reading = StepReading(step + 1, *losses, lambda_)
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
        if before_step is not None:
            before_step(reading)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        optimizer.zero_grad()
        if controller is not None:
            controller.update(reading.replay_loss)
            if keep.reads_after(step + 1, steps):
                held_out = pool.batch(torch.arange(train_rows, train_rows + keep.drift_rows)).to(device)
                held_out_mean = held_out_kl(model, held_out, teacher, dtype)
                controller.compare(held_out_mean, rounds=(step + 1) * accumulate * rows / train_rows)
            lambda_ = controller.lambda_
            if step + 1 == steps and scale_rows and keep.budget is not None:
                batch = pool.batch(train_rows + keep.drift_rows + torch.arange(scale_rows)).to(device)
                read = partial(held_out_kl, model, batch, teacher, dtype)
                scale_to(partial(scale_change, model, start), read, keep.budget)
        yield reading


def windows(batches: Iterable[Batch], accumulate: int, device: torch.device) -> Iterator[list[Batch]]:
    """The micro-batches of each optimizer step; those of the last step may be fewer."""
    stream = iter(batches)
    while window := [{key: value.to(device) for key, value in batch.items()} for batch in islice(stream, accumulate)]:
        yield window


def loop_teacher(model: nn.Module, pool: ReplayPool, keep: KeepConfig, dtype: torch.dtype) -> Teacher | None:
    """The teacher of the loop: the settings' own, or the named one; `auto` takes the pool's hidden states."""
    if keep.objective == "ntp":
        return None
    if not isinstance(keep.teacher, str):
        return keep.teacher
    kind = "hidden" if keep.teacher == "auto" else keep.teacher
    check_holds(pool, kind)
    return make_teacher(kind, model, dtype)


def accumulate_gradients(
    model: nn.Module,
    window: list[Batch],
    replay: list[ReplayBatch],
    lambda_: float,
    teacher: Teacher | None,
    objective: str,
    dtype: torch.dtype,
) -> tuple[float, float]:
    """The gradients of one optimizer step, and its mean task and replay losses in nats per token."""
    device = window[0]["input_ids"].device
    task_tokens = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in window)
    replay_tokens = sum(batch.targets_BT.numel() for batch in replay)
    task_total = replay_total = 0.0
    for batch, replay_batch in zip_longest(window, replay):
        with autocast(device, dtype):
            task_loss = task_sum(model, batch) / task_tokens
        task_loss.backward()
        task_total += task_loss.item()
        if replay_batch is None:
            continue
        with autocast(device, dtype):
            replay_loss = replay_sum(model, replay_batch, teacher, objective)
        replay_loss = replay_loss / replay_tokens
        (lambda_ * replay_loss).backward()
        replay_total += replay_loss.item()
    return task_total, replay_total


@torch.no_grad()
def held_out_kl(model: nn.Module, batch: ReplayBatch, teacher: Teacher | None, dtype: torch.dtype) -> float:
    """Mean KL(base‖model) over rows that are never trained on, nats per token."""
    model.eval()
    with autocast(batch.inputs_BP.device, dtype):
        total = replay_sum(model, batch, teacher).item()
    model.train()
    return total / batch.targets_BT.numel()


def task_sum(model: nn.Module, batch: Batch) -> Tensor:
    """Σ CE over the loss-bearing tokens of a batch, in nats, differentiable."""
    targets_BT = batch["labels"][:, 1:]
    mask_BT = targets_BT != -100
    hidden_ND = hidden_states(model, batch["input_ids"])[:, :-1][mask_BT]
    return fused_next_token_ce(hidden_ND, head_of(model), targets_BT[mask_BT])
