"""The mathematics: every divergence as a dense reference, which faster paths must equal, and as its block form.

    R = Σ_n D(π_n, θ_n)      base π, student θ, next-token distributions at token n

A dense function takes logits [N, V] of any float dtype and returns the sum over the tokens where `mask_N` is true, in
nats, with sums in fp32 (fp64 for fp64 logits). Divide by the global count of such tokens. A block form takes the
log-probabilities of a few tokens [R, V] and returns the loss of each token [R] and its gradient at the student's logits
[R, V]. A block form may overwrite its inputs.

Source: Marek et al. 2026 (arXiv 2605.26097), the term R of `CE(task) + λ·R(replay)`.
Shapes: N tokens, R tokens of a block, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from keeptune.errors import ConfigError


@dataclass(frozen=True)
class Divergence:
    """One divergence; `DIVERGENCES` holds them by name."""

    dense: Callable[..., Tensor]
    """(student logits, teacher logits[, beta], mask_N=None) → a scalar in nats."""
    block: Callable[..., tuple[Tensor, Tensor]]
    """(student log-probabilities, teacher log-probabilities[, beta]) → loss of each token, gradient at the logits."""
    takes_beta: bool = False
    """Whether both take a weight `beta` between 0 and 1 as their third argument."""


def forward_kl(student_logits_NV: Tensor, teacher_logits_NV: Tensor, mask_N: Tensor | None = None) -> Tensor:
    """Σ_n KL(π‖θ) = Σ_n Σ_v π_v (log π_v − log θ_v), full vocabulary, temperature 1; a scalar in nats."""
    teacher = _log_softmax(teacher_logits_NV)
    return _masked_sum((teacher.exp() * (teacher - _log_softmax(student_logits_NV))).sum(dim=-1), mask_N)


def forward_kl_block(student_RV: Tensor, teacher_RV: Tensor) -> tuple[Tensor, Tensor]:
    """KL(π‖θ) and its gradient θ − π."""
    probability_RV = teacher_RV.exp()
    kl_R = teacher_RV.sub_(student_RV).mul_(probability_RV).sum(dim=-1)
    return kl_R, student_RV.exp_().sub_(probability_RV)


def reverse_kl(student_logits_NV: Tensor, teacher_logits_NV: Tensor, mask_N: Tensor | None = None) -> Tensor:
    """Σ_n KL(θ‖π) = Σ_n Σ_v θ_v (log θ_v − log π_v); a scalar in nats."""
    return forward_kl(teacher_logits_NV, student_logits_NV, mask_N)


def reverse_kl_block(student_RV: Tensor, teacher_RV: Tensor) -> tuple[Tensor, Tensor]:
    """KL(θ‖π) and its gradient."""
    gap_RV = student_RV - teacher_RV
    return _expectation(student_RV.exp_(), gap_RV)


def jensen_shannon(
    student_logits_NV: Tensor, teacher_logits_NV: Tensor, beta: float, mask_N: Tensor | None = None
) -> Tensor:
    """Σ_n β·KL(π‖m) + (1 − β)·KL(θ‖m) with m = β·π + (1 − β)·θ and 0 < β < 1; a scalar in nats.

    Source: the generalized Jensen-Shannon divergence of Agarwal et al. 2023 (arXiv 2306.13649), equation 1.
    """
    teacher, student = _log_softmax(teacher_logits_NV), _log_softmax(student_logits_NV)
    mixture = (beta * teacher.exp() + (1 - beta) * student.exp()).log()
    jsd_N = (beta * teacher.exp() * (teacher - mixture) + (1 - beta) * student.exp() * (student - mixture)).sum(dim=-1)
    return _masked_sum(jsd_N, mask_N)


def jensen_shannon_block(student_RV: Tensor, teacher_RV: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """β·KL(π‖m) + (1 − β)·KL(θ‖m) with m = β·π + (1 − β)·θ, and its gradient."""
    mixture_RV = torch.logaddexp(teacher_RV + math.log(beta), student_RV + math.log1p(-beta))
    teacher_part_R = (teacher_RV.exp() * (teacher_RV - mixture_RV)).sum(dim=-1)
    gap_RV = student_RV - mixture_RV
    student_part_R, gradient_RV = _expectation(student_RV.exp_(), gap_RV)
    return beta * teacher_part_R + (1 - beta) * student_part_R, gradient_RV.mul_(1 - beta)


def next_token_ce(student_logits_NV: Tensor, target_N: Tensor, mask_N: Tensor | None = None) -> Tensor:
    """Σ_n −log θ(target_n), the `ntp` replay term; a scalar in nats. `target_N` is already shifted."""
    return _masked_sum(-_log_softmax(student_logits_NV).gather(-1, target_N[:, None]).squeeze(-1), mask_N)


def next_token_ce_block(student_RV: Tensor, target_R: Tensor) -> tuple[Tensor, Tensor]:
    """−log θ(target) and its gradient: θ, minus 1 at the target."""
    target_R1 = target_R[:, None]
    ce_R = -student_RV.gather(-1, target_R1).squeeze(-1)
    gradient_RV = student_RV.exp_()
    return ce_R, gradient_RV.scatter_add_(-1, target_R1, gradient_RV.new_full(target_R1.shape, -1.0))


DIVERGENCES = {
    "kl": Divergence(forward_kl, forward_kl_block),
    "reverse_kl": Divergence(reverse_kl, reverse_kl_block),
    "jensen_shannon": Divergence(jensen_shannon, jensen_shannon_block, takes_beta=True),
}


def register_divergence(name: str, divergence: Divergence) -> None:
    """Make `fused_divergence` and the replay term accept a divergence by `name`. A taken name raises `ConfigError`."""
    if name in DIVERGENCES:
        raise ConfigError(f"the divergence {name!r} is already registered", "choose another name")
    DIVERGENCES[name] = divergence


def _log_softmax(logits_NV: Tensor) -> Tensor:
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    return logits_NV.to(wide).log_softmax(dim=-1)


def _masked_sum(loss_N: Tensor, mask_N: Tensor | None) -> Tensor:
    return loss_N.sum() if mask_N is None else loss_N[mask_N].sum()


def _expectation(probability_RV: Tensor, value_RV: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_v θ_v·x_v, and its gradient at the logits where x itself contributes none: θ ⊙ (x − Σ_v θ_v·x_v).

    For x = log θ − log m the derivative of x drops out of the sum, for any m that θ and the teacher mix to.
    """
    loss_R = (probability_RV * value_RV).sum(dim=-1)
    return loss_R, value_RV.sub_(loss_R[:, None]).mul_(probability_RV)
