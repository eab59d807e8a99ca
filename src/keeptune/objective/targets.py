"""What the student is held to: the base's predictions, in the form in which they were kept.

Shapes: N tokens, C tokens of a chunk, R tokens of a block, V vocabulary, D width, K words kept of a prediction.
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
        """The same for some of its tokens."""
        ...

    def log_probs(self, student_RV: Tensor) -> Tensor:
        """Log-probabilities [R, V], fp32 or wider, a fresh tensor; `student_RV`: the student's for the same tokens."""
        ...


class Target(Protocol):
    """The base's predictions for N tokens."""

    def chunk(self, rows: slice) -> ChunkTarget:
        """Those of some tokens, with their matrix product done."""
        ...


@dataclass(frozen=True, kw_only=True)
class HiddenTarget:
    """Exact: the base's final hidden states, from which its own head makes its logits anew."""

    hidden_ND: Tensor
    """The base's final hidden states."""
    head: Head
    """The base's head."""

    def chunk(self, rows: slice) -> LogitTarget:
        """See `Target.chunk`."""
        return LogitTarget(product_CV=self.head.product(self.hidden_ND[rows]), head=self.head)


@dataclass(frozen=True, kw_only=True)
class LogitTarget:
    """The base's logits, all but finished."""

    product_CV: Tensor
    """What the head's matrix product gave."""
    head: Head
    """The head that gave it."""

    def block(self, rows: slice) -> LogitTarget:
        """See `ChunkTarget.block`."""
        return LogitTarget(product_CV=self.product_CV[rows], head=self.head)

    def log_probs(self, student_RV: Tensor) -> Tensor:
        """See `ChunkTarget.log_probs`."""
        return self.head.finish(self.product_CV).log_softmax(dim=-1)


@dataclass(frozen=True, kw_only=True)
class TopKTarget:
    """The base's K most likely words and, as one more event, all the rest of its vocabulary.

    The tail is spread over words as the student spreads its own. A divergence from that table, and its gradient, are
    those between the two distributions over K + 1 events: at most the full divergence, blind within the tail.
    """

    ids_NK: Tensor
    """Ids of the kept words, any integer dtype, none twice in a row; K < V."""
    log_probs_NK1: Tensor
    """Their log-probabilities and, last, that of the tail; any float dtype, normalised again here."""

    def chunk(self, rows: slice) -> TopKTarget:
        """See `Target.chunk`."""
        return TopKTarget(ids_NK=self.ids_NK[rows], log_probs_NK1=self.log_probs_NK1[rows])

    def block(self, rows: slice) -> TopKTarget:
        """See `ChunkTarget.block`."""
        return self.chunk(rows)

    def log_probs(self, student_RV: Tensor) -> Tensor:
        """See `ChunkTarget.log_probs`."""
        ids_RK = self.ids_NK.long()
        kept_RK1 = self.log_probs_NK1.to(student_RV.dtype).log_softmax(dim=-1)
        student_tail_R1 = student_RV.scatter(-1, ids_RK, -torch.inf).logsumexp(dim=-1, keepdim=True)
        teacher_RV = student_RV + (kept_RK1[:, -1:] - student_tail_R1)
        return teacher_RV.scatter_(-1, ids_RK, kept_RK1[:, :-1])


def top_k(log_probs_NV: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The ids [N, k] of the likeliest words, and [N, k + 1] their log-probabilities with the tail's as the last."""
    kept_NK, ids_NK = log_probs_NV.topk(k, dim=-1)
    tail_N1 = log_probs_NV.scatter(-1, ids_NK, -torch.inf).logsumexp(dim=-1, keepdim=True)
    return ids_NK, torch.cat([kept_NK, tail_N1], dim=-1)
