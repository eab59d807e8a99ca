"""What is read of a small model along its fine-tuning, on documents that no training saw."""

from __future__ import annotations

import torch
from corpus import corpus
from grid import Cell
from torch import Tensor, nn

from keeptune.replay.pool import ReplayBatch
from keeptune.replay.teacher import evaluating, kept_predictions, make_teacher
from keeptune.train.loop import held_out_kl, task_sum


class Reader:
    """Reads a model's loss on held-out new and old text, and its KL from the base on the old; made from the base.

    Args:
        base: before any training of it.
        cell: its `eval_rows` are how many rows of either text are read.
    """

    def __init__(self, base: nn.Module, cell: Cell) -> None:
        self.device = next(base.parameters()).device
        self.new_RT1 = corpus(cell, "new").held_out_RT1[: cell["eval_rows"]].to(self.device)
        old_RT1 = corpus(cell, "old").held_out_RT1[: cell["eval_rows"]]
        with evaluating(base):
            kept = kept_predictions(base, old_RT1[:, :-1], torch.float32, "hidden", 0)
        self.old = ReplayBatch(tokens_BT1=old_RT1, kept=kept).to(self.device)
        self.teacher = make_teacher("hidden", base, torch.float32)

    def read(self, model: nn.Module) -> dict[str, float]:
        """`new_loss`, `old_loss` and `kl` on the old text, nats per token."""
        with evaluating(model), torch.no_grad():
            found = {"new_loss": mean_loss(model, self.new_RT1), "old_loss": mean_loss(model, self.old.tokens_BT1)}
            found["kl"] = held_out_kl(model, self.old, self.teacher, torch.float32)
        return {name: round(value, 5) for name, value in found.items()}


def mean_loss(model: nn.Module, rows_RT1: Tensor) -> float:
    """Next-token cross-entropy, nats per token."""
    return task_sum(model, {"input_ids": rows_RT1, "labels": rows_RT1}).item() / rows_RT1[:, 1:].numel()
