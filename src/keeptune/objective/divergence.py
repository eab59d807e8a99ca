"""The dense reference: what every faster path must equal.

Shapes: N tokens, V vocabulary. Logits of any float dtype; all sums are fp32 (fp64 for fp64 logits), in nats.
Each function returns a sum over the tokens where `mask_N` is true; divide by the global count of such tokens.
Source: Marek et al. 2026 (arXiv 2605.26097), the term R of `CE(task) + λ·R(replay)`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _log_softmax(logits_NV: Tensor) -> Tensor:
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    return logits_NV.to(wide).log_softmax(dim=-1)


def forward_kl(student_logits_NV: Tensor, teacher_logits_NV: Tensor, mask_N: Tensor | None = None) -> Tensor:
    """Σ_n KL(π‖θ) = Σ_n Σ_v π_v (log π_v − log θ_v), full vocabulary, temperature 1; a scalar in nats."""
    teacher = _log_softmax(teacher_logits_NV)
    kl_N = (teacher.exp() * (teacher - _log_softmax(student_logits_NV))).sum(dim=-1)
    return kl_N.sum() if mask_N is None else kl_N[mask_N].sum()


def reverse_kl(student_logits_NV: Tensor, teacher_logits_NV: Tensor, mask_N: Tensor | None = None) -> Tensor:
    """Σ_n KL(θ‖π) = Σ_n Σ_v θ_v (log θ_v − log π_v); a scalar in nats."""
    return forward_kl(teacher_logits_NV, student_logits_NV, mask_N)


def jensen_shannon(
    student_logits_NV: Tensor, teacher_logits_NV: Tensor, beta: float, mask_N: Tensor | None = None
) -> Tensor:
    """Σ_n β·KL(π‖m) + (1 − β)·KL(θ‖m) with m = β·π + (1 − β)·θ and 0 < β < 1; a scalar in nats.

    Source: the generalised Jensen-Shannon divergence of Agarwal et al. 2023 (arXiv 2306.13649), equation 1.
    """
    teacher, student = _log_softmax(teacher_logits_NV), _log_softmax(student_logits_NV)
    mixture = (beta * teacher.exp() + (1 - beta) * student.exp()).log()
    jsd_N = (beta * teacher.exp() * (teacher - mixture) + (1 - beta) * student.exp() * (student - mixture)).sum(dim=-1)
    return jsd_N.sum() if mask_N is None else jsd_N[mask_N].sum()


def next_token_ce(student_logits_NV: Tensor, target_N: Tensor, mask_N: Tensor | None = None) -> Tensor:
    """Σ_n −log θ(target_n), the `ntp` replay term; a scalar in nats. `target_N` is already shifted."""
    ce_N = -_log_softmax(student_logits_NV).gather(-1, target_N[:, None]).squeeze(-1)
    return ce_N.sum() if mask_N is None else ce_N[mask_N].sum()
