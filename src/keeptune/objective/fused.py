"""The objective from (hidden states, head weight), a chunk of tokens at a time.

No tensor of tokens × vocabulary outlives its chunk, and the gradients are taken in the forward pass while the
chunk's logits are in hand: backward only scales them. Equal to `divergence.py` in values and gradients.

Shapes: N tokens, C tokens of a chunk, V vocabulary, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from keeptune.objective.head import Head, compute_dtype

CHUNK_TOKENS = 256

# (chunk of finished logits, slice of the chunk in N) -> (sum over the chunk, gradient at the logits, a fresh tensor)
ChunkLoss = Callable[[Tensor, slice], tuple[Tensor, Tensor]]


def fused_forward_kl(
    student_hidden_ND: Tensor,
    student_head: Head,
    teacher_hidden_ND: Tensor,
    teacher_head: Head,
    mask_N: Tensor | None = None,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Tensor:
    """Σ_n KL(π‖θ) in nats, a differentiable fp32 scalar; see `divergence.forward_kl`.

    The teacher gets no gradient. Gradients reach `student_hidden_ND`, and the student head's weight and bias when
    they require them. The hidden states may be in any float dtype; under autocast products run in its dtype.
    """

    def chunk_loss(student_CV: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        teacher_CV = teacher_head.logits(teacher_hidden_ND[rows]).log_softmax(dim=-1)
        student_CV = student_CV.log_softmax(dim=-1)
        probability_CV = teacher_CV.exp()
        kl_C = teacher_CV.sub_(student_CV).mul_(probability_CV).sum(dim=-1)
        gradient_CV = student_CV.exp_().sub_(probability_CV)
        return _masked(kl_C, gradient_CV, mask_N, rows)

    return _fused(student_hidden_ND, student_head, chunk_loss, chunk_tokens)


def fused_reverse_kl(
    student_hidden_ND: Tensor,
    student_head: Head,
    teacher_hidden_ND: Tensor,
    teacher_head: Head,
    mask_N: Tensor | None = None,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Tensor:
    """Σ_n KL(θ‖π) in nats, a differentiable fp32 scalar; see `divergence.reverse_kl` and `fused_forward_kl`."""

    def chunk_loss(student_CV: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        teacher_CV = teacher_head.logits(teacher_hidden_ND[rows]).log_softmax(dim=-1)
        student_CV = student_CV.log_softmax(dim=-1)
        gap_CV = student_CV - teacher_CV
        return _masked(*_expectation(student_CV.exp_(), gap_CV), mask_N, rows)

    return _fused(student_hidden_ND, student_head, chunk_loss, chunk_tokens)


def fused_jensen_shannon(
    student_hidden_ND: Tensor,
    student_head: Head,
    teacher_hidden_ND: Tensor,
    teacher_head: Head,
    beta: float,
    mask_N: Tensor | None = None,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Tensor:
    """The generalised Jensen-Shannon divergence, summed, in nats; see `divergence.jensen_shannon`."""

    def chunk_loss(student_CV: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        teacher_CV = teacher_head.logits(teacher_hidden_ND[rows]).log_softmax(dim=-1)
        student_CV = student_CV.log_softmax(dim=-1)
        mixture_CV = torch.logaddexp(teacher_CV + math.log(beta), student_CV + math.log1p(-beta))
        teacher_part_C = (teacher_CV.exp() * (teacher_CV - mixture_CV)).sum(dim=-1)
        gap_CV = student_CV - mixture_CV
        student_part_C, gradient_CV = _expectation(student_CV.exp_(), gap_CV)
        loss_C = beta * teacher_part_C + (1 - beta) * student_part_C
        return _masked(loss_C, gradient_CV.mul_(1 - beta), mask_N, rows)

    return _fused(student_hidden_ND, student_head, chunk_loss, chunk_tokens)


def _expectation(probability_CV: Tensor, value_CV: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_v θ_v·x_v, and its gradient at the logits where x itself contributes none: θ ⊙ (x − Σ_v θ_v·x_v).

    For x = log θ − log m the derivative of x drops out of the sum, for any m that θ and the teacher mix to.
    """
    loss_C = (probability_CV * value_CV).sum(dim=-1)
    return loss_C, (value_CV - loss_C[:, None]).mul_(probability_CV)


def fused_next_token_ce(
    student_hidden_ND: Tensor,
    student_head: Head,
    target_N: Tensor,
    mask_N: Tensor | None = None,
    chunk_tokens: int = CHUNK_TOKENS,
) -> Tensor:
    """Σ_n −log θ(target_n) in nats, a differentiable fp32 scalar; see `divergence.next_token_ce`."""

    def chunk_loss(student_CV: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        target_C1 = target_N[rows, None]
        student_CV = student_CV.log_softmax(dim=-1)
        ce_C = -student_CV.gather(-1, target_C1).squeeze(-1)
        gradient_CV = student_CV.exp_()
        gradient_CV.scatter_add_(-1, target_C1, gradient_CV.new_full(target_C1.shape, -1.0))
        return _masked(ce_C, gradient_CV, mask_N, rows)

    return _fused(student_hidden_ND, student_head, chunk_loss, chunk_tokens)


def _masked(loss_C: Tensor, gradient_CV: Tensor, mask_N: Tensor | None, rows: slice) -> tuple[Tensor, Tensor]:
    if mask_N is not None:
        mask_C = mask_N[rows]
        loss_C = loss_C.masked_fill(~mask_C, 0.0)
        gradient_CV.masked_fill_(~mask_C[:, None], 0.0)
    return loss_C.sum(), gradient_CV


def _fused(hidden_ND: Tensor, head: Head, chunk_loss: ChunkLoss, chunk_tokens: int) -> Tensor:
    total: Tensor = _FusedLinearLoss.apply(hidden_ND, head.weight_VD, head.bias_V, head, chunk_loss, chunk_tokens)
    return total


class _FusedLinearLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        head: Head,
        chunk_loss: ChunkLoss,
        chunk_tokens: int,
    ) -> Tensor:
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        dtype = compute_dtype(hidden_ND)
        wide = torch.promote_types(dtype, torch.float32)
        weight = weight_VD.detach().to(dtype)
        grad_hidden = torch.empty_like(hidden_ND) if needs_hidden else None
        grad_weight = torch.zeros(weight.shape, dtype=wide, device=weight.device) if needs_weight else None
        grad_bias = torch.zeros(weight.shape[0], dtype=wide, device=weight.device) if needs_bias else None
        total = torch.zeros((), dtype=wide, device=hidden_ND.device)

        for start in range(0, hidden_ND.shape[0], chunk_tokens):
            rows = slice(start, start + chunk_tokens)
            hidden_CD = hidden_ND[rows].detach().to(dtype)
            logits_CV = head.finish(hidden_CD @ weight.T)
            loss, gradient_CV = chunk_loss(logits_CV, rows)
            total += loss
            if not (needs_hidden or needs_weight or needs_bias):
                continue
            gradient_CV = head.pull_back(gradient_CV, logits_CV)
            if grad_bias is not None:
                grad_bias += gradient_CV.sum(dim=0)
            narrow_CV = gradient_CV.to(dtype)
            if grad_hidden is not None:
                grad_hidden[rows] = narrow_CV @ weight
            if grad_weight is not None:
                grad_weight += narrow_CV.T @ hidden_CD

        ctx.gradients = (grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = (hidden_ND.dtype, weight_VD.dtype, None if bias_V is None else bias_V.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        scaled = tuple(
            None if gradient is None else (gradient * outer[0]).to(dtype)
            for gradient, dtype in zip(ctx.gradients, ctx.dtypes, strict=True)
        )
        return (*scaled, None, None, None)
