"""The held-out task loss, read as the trainer itself evaluates: its loaders, its loss, and none of its side effects."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from keeptune.train.host.distributed import sum_over_ranks

# What TRL's trainers gather in evaluation and report with their own next one.
_GATHERED = ("_metrics", "_stored_metrics")


def held_out_loss(trainer: Any) -> float | None:
    """Mean of the trainer's own evaluation loss over the loss-bearing tokens of its evaluation data; nats per token.

    The trainer's loader, collator and `prediction_step` do the work, so that masks, pixels, packed rows, label
    smoothing and losses of the user's own are what `trainer.evaluate()` sees. That method weights batches by their
    rows; here they are weighted by their tokens, so that the mean does not depend on how rows are batched. The sets of
    a dict are pooled. All processes must call it, with the model in evaluation mode, and each reads every row: a
    sharded loader repeats rows to fill its last batches.

    Returns:
        None without evaluation data, or where its batches have no labels (preference pairs, prompts).
    """
    data = trainer.eval_dataset
    if data is None:
        return None
    total = count = 0.0
    with _undisturbed(trainer):
        for name in data if isinstance(data, dict) else (None,):
            for batch in trainer.get_eval_dataloader(name):
                tokens = _loss_bearing(batch, shifts=getattr(trainer, "_loss_shifts_labels", True))
                if tokens is None:
                    return None
                loss, _, _ = trainer.prediction_step(trainer.model, batch, prediction_loss_only=True)
                if loss is None:
                    return None
                if tokens:
                    total, count = total + loss.mean().item() * tokens, count + tokens
    # The readings of all processes are alike, unless a loader of the user's shards its rows by itself.
    total, count = (sum_over_ranks(value, trainer.args.device) for value in (total, count))
    return total / count if count else None


def _loss_bearing(batch: Any, *, shifts: bool) -> int | None:
    """Tokens of a batch that bear loss; None if it has no labels."""
    if not hasattr(batch, "keys") or not isinstance(batch.get("labels"), Tensor):
        return None
    if "shift_labels" in batch:
        labels = batch["shift_labels"]
    else:
        labels = batch["labels"][..., 1:] if shifts else batch["labels"]
    return int((labels != -100).sum())


@contextmanager
def _undisturbed(trainer: Any) -> Iterator[None]:
    """Leave random numbers, gathered metrics and loaders of the trainer as they are, and do not shard loaders."""
    accelerator, vacant = trainer.accelerator, object()
    gathered = {name: copy.deepcopy(getattr(trainer, name)) for name in _GATHERED if hasattr(trainer, name)}
    loaders, prepare = trainer.__dict__.pop("_eval_dataloaders", vacant), vars(accelerator).get("prepare", vacant)
    accelerator.prepare = lambda *given, **how: given[0] if len(given) == 1 else given
    try:
        with _own_random_numbers(trainer.args.seed, trainer.args.device):
            yield
    finally:
        del accelerator.prepare
        accelerator.__dict__ |= {} if prepare is vacant else {"prepare": prepare}
        trainer.__dict__.pop("_eval_dataloaders", None)
        trainer.__dict__ |= gathered | ({} if loaders is vacant else {"_eval_dataloaders": loaders})


@contextmanager
def _own_random_numbers(seed: int, device: torch.device) -> Iterator[None]:
    """Seeded alike for every reading: a collator that masks at random masks the same, also after a resume."""
    python, numpy = random.getstate(), np.random.get_state()
    forks = device.type in ("cuda", "xpu")
    with torch.random.fork_rng([device] if forks else [], device_type=device.type if forks else "cuda"):
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
