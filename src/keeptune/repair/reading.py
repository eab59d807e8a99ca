"""Readings of a candidate: how far it is from the base, and what it lost of what was learned, paired by row.

Shapes: R rows or documents, T targets of a row, N target tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from keeptune.audit.meter import batched, pad_rows, target_states
from keeptune.data.tokens import EncodedRow
from keeptune.errors import Diverged
from keeptune.models.adapters import evaluating
from keeptune.models.modeling import autocast, head_of, training_dtype
from keeptune.objective import fused_next_token_ce
from keeptune.objective.drift import MEASURES
from keeptune.repair.texts import OwnText, TaskText
from keeptune.replay.batch import ReplayBatch
from keeptune.stats import Array, Interval, bootstrap_ratio
from keeptune.train.drift import drift_from

_BATCH_TOKENS = 4096


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A candidate on some rows."""

    kl: list[float]
    """KL(base‖candidate) summed over each row of the base's text, nats."""
    kl_tokens: int
    """Targets of such a row."""
    own: list[float]
    """KL(tuned‖candidate) summed over each row of the tuned model's text, nats."""
    own_tokens: int
    """Targets of such a row."""
    task: dict[str, list[float]]
    """By document of the task's text: next-token loss of the candidate summed, nats, and the number of targets."""

    @property
    def forgotten(self) -> Interval:
        """KL(base‖candidate), nats per token, with its interval over rows."""
        return _mean(self.kl, self.kl_tokens)

    @property
    def unlearned(self) -> Interval:
        """KL(tuned‖candidate), nats per token, with its interval over rows."""
        return _mean(self.own, self.own_tokens)

    @property
    def task_loss(self) -> Interval | None:
        """Next-token loss on the task's text, nats per token; None without it."""
        if not self.task:
            return None
        sums_R, tokens_R = np.array(list(self.task.values())).T
        return bootstrap_ratio(sums_R, tokens_R, least=0.0)

    @property
    def costs_R(self) -> Array:
        """What learning is read on, summed by row: the task's loss where it is given, else KL(tuned‖candidate)."""
        return np.array([loss for loss, _ in self.task.values()] if self.task else self.own)


def _mean(sums: Sequence[float], tokens: int) -> Interval:
    return bootstrap_ratio(np.array(sums), np.full(len(sums), float(tokens)), least=0.0)


@dataclass(frozen=True, kw_only=True)
class Ends:
    """The readings of base and tuned model on the same rows, by which shares are taken."""

    base: Reading
    tuned: Reading

    @property
    def gain_R(self) -> Array:
        """What tuning learned, by row: the loss that the base has above the tuned model."""
        return self.base.costs_R - self.tuned.costs_R

    def lost(self, reading: Reading) -> Interval:
        """The share of what was learned that a candidate lost, paired by row; below 0 where it learned more."""
        return bootstrap_ratio(reading.costs_R - self.tuned.costs_R, self.gain_R)

    def undone(self, reading: Reading) -> Interval:
        """The share of KL(base‖tuned) that a candidate took back, paired by row."""
        return bootstrap_ratio(np.array(self.tuned.kl) - np.array(reading.kl), np.array(self.tuned.kl))


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads whatever is in the model."""

    model: nn.Module
    base_text: OwnText
    tuned_text: OwnText
    task: TaskText | None

    def choosing(self) -> Reading:
        """On the rows that candidates are chosen on."""
        task = None if self.task is None else self.task.choosing
        return self._read(self.base_text.choosing, self.tuned_text.choosing, task)

    def fresh(self) -> Reading:
        """On the rows that nothing is chosen on."""
        task = None if self.task is None else self.task.fresh
        return self._read(self.base_text.fresh, self.tuned_text.fresh, task)

    def _read(self, base_rows: range, tuned_rows: range, task: list[EncodedRow] | None) -> Reading:
        kl_RT = self.kl(self.base_text, base_rows)
        own_RT = self.kl(self.tuned_text, tuned_rows)
        if not (kl_RT.isfinite().all() and own_RT.isfinite().all()):
            raise Diverged("the candidate predicts NaN", "check both models, or name other methods (--method)")
        return Reading(
            kl=kl_RT.sum(dim=1).tolist(),
            kl_tokens=kl_RT.shape[1],
            own=own_RT.sum(dim=1).tolist(),
            own_tokens=own_RT.shape[1],
            task={} if task is None else task_losses(self.model, task),
        )

    @torch.no_grad()
    def kl(self, text: OwnText, rows: range) -> Tensor:
        """KL of the text's writer to the model in hand at every target, nats, fp64 [R, T]."""
        batch: ReplayBatch = text.batch(rows)
        device, dtype = next(self.model.parameters()).device, training_dtype(self.model)
        with evaluating(self.model), autocast(device, dtype):
            values = drift_from(text.head, self.model, batch, device=device, dtype=dtype)
            kl_N = torch.cat([part[:, MEASURES.index("kl")].cpu() for part in values])
        return kl_N.double().reshape(batch.targets_BT.shape)


@torch.no_grad()
def task_losses(model: nn.Module, rows: list[EncodedRow]) -> dict[str, list[float]]:
    """Next-token loss of each document summed over its targets, nats, and their number; in the order of documents."""
    totals: dict[str, list[float]] = {row["document"]: [0.0, 0.0] for row in rows}
    device, dtype = next(model.parameters()).device, training_dtype(model)
    head = head_of(model)
    with evaluating(model), autocast(device, dtype):
        for batch in batched(rows, lambda row: len(row["input_ids"]), _BATCH_TOKENS):
            input_BT, label_BT = pad_rows(batch)
            mask_BT = label_BT[:, 1:] != -100
            hidden_ND = target_states(model, input_BT, mask_BT)
            sizes = mask_BT.sum(dim=1).tolist()
            targets_N = label_BT[:, 1:][mask_BT].to(device)
            for row, states, targets in zip(batch, hidden_ND.split(sizes), targets_N.split(sizes), strict=True):
                totals[row["document"]][0] += float(fused_next_token_ce(states, head, targets))
                totals[row["document"]][1] += len(targets)
    return totals


def reading_of(content: Mapping[str, Any]) -> Reading:
    """A reading from JSON."""
    return Reading(**content)
