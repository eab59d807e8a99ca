"""Readings of a small model along its fine-tuning, on documents that no training used."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.grid import Cell
from common.small.corpus import corpus
from keeptune.audit.meter import MEASURES, token_drift
from keeptune.models.adapters import evaluating
from keeptune.models.modeling import head_of, hidden_states
from keeptune.replay.batch import ReplayBatch
from keeptune.replay.teachers import make_teacher, teacher_outputs
from keeptune.train.loop import held_out_kl, task_sum


class Reader:
    """Reads a model's loss on held-out new and old text, and KL(base‖model) on the old text.

    Args:
        base: the base, before it is trained.
        cell: `eval_rows` is the number of rows of each text that are read; `reads_l_f` adds L_f to a reading.
    """

    def __init__(self, base: nn.Module, cell: Cell) -> None:
        self.device = next(base.parameters()).device
        self.new_RT1 = corpus(cell, "new").held_out_RT1[: cell["eval_rows"]].to(self.device)
        old_RT1 = corpus(cell, "old").held_out_RT1[: cell["eval_rows"]]
        with evaluating(base):
            outputs = teacher_outputs(base, ReplayBatch(tokens_BW=old_RT1), torch.float32, "hidden", 0)
        self.old = ReplayBatch(tokens_BW=old_RT1, outputs=outputs).to(self.device)
        self.teacher = make_teacher("hidden", base, torch.float32)
        self.reads_l_f = cell.get("reads_l_f", False)

    def read(self, model: nn.Module) -> dict[str, float]:
        """`new_loss`, `old_loss`, and `kl` on the old text, nats per token; `l_f` and `l_f_base` if asked for."""
        with evaluating(model), torch.no_grad():
            found = {"new_loss": mean_loss(model, self.new_RT1), "old_loss": mean_loss(model, self.old.tokens_BW)}
            found["kl"] = held_out_kl(model, self.old, self.teacher, torch.float32)
            if self.reads_l_f:
                found |= self.l_f(model)
        return {name: round(value, 5) for name, value in found.items()}

    def l_f(self, model: nn.Module) -> dict[str, float]:
        """Cross-entropy of the model and of the base on the old text, with the base's likeliest token as target."""
        target = self.teacher.target(model, self.old)
        hidden_ND = hidden_states(model, self.old.inputs_BP).flatten(0, 1)
        targets_N = self.old.targets_BT.flatten()
        value_NM = token_drift(hidden_ND, head_of(model), target.hidden_ND, target.head, targets_N)
        means = dict(zip(MEASURES, value_NM.mean(dim=0).tolist(), strict=True))
        return {"l_f": means["l_f"], "l_f_base": means["l_f_base"]}


def mean_loss(model: nn.Module, rows_RT1: Tensor) -> float:
    """Next-token cross-entropy, nats per token."""
    return task_sum(model, {"input_ids": rows_RT1, "labels": rows_RT1}).item() / rows_RT1[:, 1:].numel()
