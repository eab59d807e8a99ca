"""The base's predictions that the student is trained towards, in the form in which they were stored.

Shapes: N tokens, C tokens of a chunk, R tokens of a block, V vocabulary, D width, K stored tokens of a prediction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from keeptune.objective.head import Head


class ChunkTarget(Protocol):
    """The predictions for the tokens of one chunk."""

    def block(self, rows: slice) -> ChunkTarget:
        """The predictions for some of the chunk's tokens."""

    def log_probs(self, student_RV: Tensor) -> Tensor:
        """Log-probabilities [R, V], fp32 or wider, in a new tensor. `student_RV` are the student's."""


class Target(Protocol):
    """The base's predictions for N tokens."""

    def chunk(self, rows: slice) -> ChunkTarget:
        """The predictions for a range of tokens, with the chunk's matrix product computed."""


@dataclass(frozen=True, kw_only=True)
class HiddenTarget:
    """Exact: the base's final hidden states, from which the base's head recomputes the logits."""

    hidden_ND: Tensor
    head: Head

    def chunk(self, rows: slice) -> LogitTarget:
        return LogitTarget(product_CV=self.head.product(self.hidden_ND[rows]), head=self.head)


@dataclass(frozen=True, kw_only=True)
class LogitTarget:
    """The base's logits before bias, scale and soft cap."""

    product_CV: Tensor
    """The matrix product of hidden states and head weight."""
    head: Head

    def block(self, rows: slice) -> LogitTarget:
        return LogitTarget(product_CV=self.product_CV[rows], head=self.head)

    def log_probs(self, student_RV: Tensor) -> Tensor:
        return self.head.finish(self.product_CV).log_softmax(dim=-1)


@dataclass(frozen=True, kw_only=True)
class TopKTarget:
    """The base's K most likely tokens, and the rest of the vocabulary (the tail) as one more event.

    The tail's mass is distributed over tokens in proportion to the student's own probabilities. The divergence and its
    gradient are then those between two distributions over K + 1 events: at most the full divergence, and zero for
    differences within the tail.
    """

    ids_NK: Tensor
    """Ids of the stored tokens, any integer dtype, distinct within a row; K < V."""
    log_probs_NK1: Tensor
    """Log-probabilities of the stored tokens and, last, of the tail; any float dtype, normalized again here."""

    def chunk(self, rows: slice) -> TopKTarget:
        return TopKTarget(ids_NK=self.ids_NK[rows], log_probs_NK1=self.log_probs_NK1[rows])

    def block(self, rows: slice) -> TopKTarget:
        return self.chunk(rows)

    def log_probs(self, student_RV: Tensor) -> Tensor:
        ids_RK = self.ids_NK.long()
        kept_RK1 = self.log_probs_NK1.to(student_RV.dtype).log_softmax(dim=-1)
        student_tail_R1 = student_RV.scatter(-1, ids_RK, -torch.inf).logsumexp(dim=-1, keepdim=True)
        teacher_RV = student_RV + (kept_RK1[:, -1:] - student_tail_R1)
        return teacher_RV.scatter_(-1, ids_RK, kept_RK1[:, :-1])


def top_k(log_probs_NV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Ids [N, k] of the most likely tokens, and their log-probabilities [N, k + 1] with the tail's as the last."""
    kept_NK, ids_NK = log_probs_NV.topk(k, dim=-1)
    tail_N1 = log_probs_NV.scatter(-1, ids_NK, -torch.inf).logsumexp(dim=-1, keepdim=True)
    return ids_NK, torch.cat([kept_NK, tail_N1], dim=-1)
