"""Value and gradient of each loss from finished log-probabilities: what `fused.py` does between two matrix products.

Every function takes the student's log-probabilities, which it may overwrite, and returns the loss of each token, in
nats, and its gradient at the student's logits. Shapes: R tokens, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from keeptune.objective.targets import ChunkTarget, Target

Divergence = Literal["forward_kl", "reverse_kl", "jensen_shannon"]


def forward_kl_block(student_RV: Tensor, teacher_RV: Tensor) -> tuple[Tensor, Tensor]:
    """KL(π‖θ) and its gradient θ − π."""
    probability_RV = teacher_RV.exp()
    kl_R = teacher_RV.sub_(student_RV).mul_(probability_RV).sum(dim=-1)
    return kl_R, student_RV.exp_().sub_(probability_RV)


def reverse_kl_block(student_RV: Tensor, teacher_RV: Tensor) -> tuple[Tensor, Tensor]:
    """KL(θ‖π) and its gradient."""
    gap_RV = student_RV - teacher_RV
    return _expectation(student_RV.exp_(), gap_RV)


def jensen_shannon_block(student_RV: Tensor, teacher_RV: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """β·KL(π‖m) + (1 − β)·KL(θ‖m) with m = β·π + (1 − β)·θ, and its gradient."""
    mixture_RV = torch.logaddexp(teacher_RV + math.log(beta), student_RV + math.log1p(-beta))
    teacher_part_R = (teacher_RV.exp() * (teacher_RV - mixture_RV)).sum(dim=-1)
    gap_RV = student_RV - mixture_RV
    student_part_R, gradient_RV = _expectation(student_RV.exp_(), gap_RV)
    return beta * teacher_part_R + (1 - beta) * student_part_R, gradient_RV.mul_(1 - beta)


def _expectation(probability_RV: Tensor, value_RV: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_v θ_v·x_v, and its gradient at the logits where x itself contributes none: θ ⊙ (x − Σ_v θ_v·x_v).

    For x = log θ − log m the derivative of x drops out of the sum, for any m that θ and the teacher mix to.
    """
    loss_R = (probability_RV * value_RV).sum(dim=-1)
    return loss_R, value_RV.sub_(loss_R[:, None]).mul_(probability_RV)


class ChunkLoss(Protocol):
    """A loss of the tokens of one chunk."""

    def block(self, rows: slice) -> ChunkLoss:
        """The same for some of its tokens."""
        ...

    def __call__(self, student_RV: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of each token and the gradient at the logits, from the student's log-probabilities."""
        ...


@dataclass(frozen=True)
class DivergenceLoss:
    """A divergence from a target."""

    kind: Divergence
    beta: float
    target: ChunkTarget

    def block(self, rows: slice) -> DivergenceLoss:
        """See `ChunkLoss.block`."""
        return DivergenceLoss(self.kind, self.beta, self.target.block(rows))

    def __call__(self, student_RV: Tensor) -> tuple[Tensor, Tensor]:
        """See `ChunkLoss`."""
        teacher_RV = self.target.log_probs(student_RV)
        if self.kind == "forward_kl":
            return forward_kl_block(student_RV, teacher_RV)
        if self.kind == "reverse_kl":
            return reverse_kl_block(student_RV, teacher_RV)
        return jensen_shannon_block(student_RV, teacher_RV, self.beta)


@dataclass(frozen=True)
class NextTokenLoss:
    """Cross-entropy against one word for each token."""

    target_C: Tensor

    def block(self, rows: slice) -> NextTokenLoss:
        """See `ChunkLoss.block`."""
        return NextTokenLoss(self.target_C[rows])

    def __call__(self, student_RV: Tensor) -> tuple[Tensor, Tensor]:
        """See `ChunkLoss`."""
        target_R1 = self.target_C[:, None]
        ce_R = -student_RV.gather(-1, target_R1).squeeze(-1)
        gradient_RV = student_RV.exp_()
        return ce_R, gradient_RV.scatter_add_(-1, target_R1, gradient_RV.new_full(target_R1.shape, -1.0))


def divergence_loss(kind: Divergence, beta: float, target: Target, rows: slice) -> DivergenceLoss:
    """The divergence over one chunk of a target, with the chunk's matrix product done."""
    return DivergenceLoss(kind, beta, target.chunk(rows))
