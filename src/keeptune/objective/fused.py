"""The objective from (hidden states, head weight), a chunk of tokens at a time.

No tensor of tokens × vocabulary outlives its chunk. Gradients are computed in the forward pass, while the logits of the
chunk exist, and backward only scales them. Equal to `divergence.py` in values and gradients.

A chunk is as large as a memory budget allows, because matrix products want many rows. The element-wise work between
them runs over blocks of a few rows, which fit a processor's cache. On a GPU it runs compiled over the whole chunk.

Shapes: N tokens, C tokens of a chunk, R tokens of a block, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from keeptune.errors import ConfigError
from keeptune.objective.divergence import DIVERGENCES, Divergence, next_token_ce_block
from keeptune.objective.head import Head, compute_dtype, word_slices
from keeptune.objective.targets import ChunkTarget, Target

# Bytes that the tokens × vocabulary tensors of a chunk may take, by device. Gradients of the head come on top.
MEMORY_BUDGET = {"cpu": 192 * 2**20, "cuda": 2**30}
_BLOCK_BYTES = 3 * 2**19
_GEMM_ROWS = 64


def fused_divergence(
    student_hidden_ND: Tensor,
    student_head: Head,
    target: Target,
    divergence: str = "kl",
    *,
    beta: float = 0.5,
    mask_N: Tensor | None = None,
    chunk_tokens: int | None = None,
) -> Tensor:
    """Σ_n of a divergence between base π and student θ: a differentiable fp32 scalar in nats; see `divergence.py`.

    Args:
        student_hidden_ND: final hidden states in any float dtype. Under autocast, products run in autocast's dtype.
        student_head: gradients reach its weight and bias if these require gradients.
        target: the base's predictions; they get no gradient.
        divergence: a name in `DIVERGENCES`: `kl` is KL(π‖θ), `reverse_kl` is KL(θ‖π), `jensen_shannon` is the
            generalized Jensen-Shannon divergence with weight `beta`.
        beta: for divergences that take it, between 0 and 1.
        mask_N: sum over the tokens where it is true; default all tokens.
        chunk_tokens: tokens whose logits exist at the same time; default as many as `MEMORY_BUDGET` allows.

    Raises:
        ConfigError: an unknown divergence, or `beta` outside (0, 1).
    """
    if divergence not in DIVERGENCES:
        raise ConfigError(f"unknown divergence {divergence!r}", f"choose one of {', '.join(DIVERGENCES)}")
    if not 0.0 < beta < 1.0:
        raise ConfigError(f"beta is {beta}", "give a number between 0 and 1, such as 0.5")

    def chunk_loss(rows: slice) -> ChunkLoss:
        return DivergenceLoss(DIVERGENCES[divergence], beta, target.chunk(rows))

    return _fused(student_hidden_ND, student_head, chunk_loss, mask_N, chunk_tokens)


def fused_next_token_ce(
    student_hidden_ND: Tensor,
    student_head: Head,
    target_N: Tensor,
    *,
    mask_N: Tensor | None = None,
    chunk_tokens: int | None = None,
) -> Tensor:
    """Σ_n −log θ(target_n) in nats, a differentiable fp32 scalar; see `divergence.next_token_ce`."""
    return _fused(student_hidden_ND, student_head, lambda rows: NextTokenLoss(target_N[rows]), mask_N, chunk_tokens)


class ChunkLoss(Protocol):
    """A loss of the tokens of one chunk."""

    def block(self, rows: slice) -> ChunkLoss:
        """The same loss for some of the chunk's tokens."""

    def __call__(self, student_RV: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each token, and gradient at the logits, from the student's log-probabilities (overwritten)."""


LossOf = Callable[[slice], ChunkLoss]
"""From a range of tokens, a chunk, to its loss."""


@dataclass(frozen=True)
class DivergenceLoss:
    """A divergence from a target."""

    divergence: Divergence
    beta: float
    target: ChunkTarget

    def block(self, rows: slice) -> DivergenceLoss:
        return DivergenceLoss(self.divergence, self.beta, self.target.block(rows))

    def __call__(self, student_RV: Tensor) -> tuple[Tensor, Tensor]:
        teacher_RV = self.target.log_probs(student_RV)
        weight = (self.beta,) if self.divergence.takes_beta else ()
        return self.divergence.block(student_RV, teacher_RV, *weight)


@dataclass(frozen=True)
class NextTokenLoss:
    """Cross-entropy against one target id for each token."""

    target_C: Tensor

    def block(self, rows: slice) -> NextTokenLoss:
        return NextTokenLoss(self.target_C[rows])

    def __call__(self, student_RV: Tensor) -> tuple[Tensor, Tensor]:
        return next_token_ce_block(student_RV, self.target_C)


def chunk_size(tokens: int, vocabulary: int, dtype: torch.dtype, device: torch.device) -> int:
    """How many tokens a chunk may hold within `MEMORY_BUDGET`: both models' products, and on a GPU fp32 copies."""
    blocked = device.type == "cpu"
    bytes_a_token = vocabulary * (2 * dtype.itemsize + (0 if blocked else 16))
    fitting = MEMORY_BUDGET["cpu" if blocked else "cuda"] // bytes_a_token
    return max(1, min(tokens, max(_GEMM_ROWS, fitting // _GEMM_ROWS * _GEMM_ROWS)))


def _fused(
    hidden_ND: Tensor, head: Head, chunk_loss: LossOf, mask_N: Tensor | None, chunk_tokens: int | None
) -> Tensor:
    return _FusedLinearLoss.apply(hidden_ND, head.weight_VD, head.bias_V, head, chunk_loss, mask_N, chunk_tokens)


class _FusedLinearLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        head: Head,
        chunk_loss: LossOf,
        mask_N: Tensor | None,
        chunk_tokens: int | None,
    ) -> Tensor:
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        device, dtype = hidden_ND.device, compute_dtype(hidden_ND)
        wide = torch.promote_types(dtype, torch.float32)
        weight = weight_VD.detach().to(dtype)
        grad_hidden = torch.empty_like(hidden_ND) if needs_hidden else None
        make = torch.empty if len(hidden_ND) else torch.zeros
        grad_weight = make(weight.shape, dtype=wide, device=device) if needs_weight else None
        grad_bias = torch.zeros(len(weight), dtype=wide, device=device) if needs_bias else None
        total = torch.zeros((), dtype=wide, device=device)
        tokens = len(hidden_ND)
        step = chunk_tokens or chunk_size(tokens, len(weight), dtype, device)
        for start in range(0, tokens, step):
            rows = slice(start, min(start + step, tokens))
            hidden_CD = hidden_ND[rows].detach().to(dtype)
            product_CV = hidden_CD @ weight.T
            mask_C = None if mask_N is None else mask_N[rows]
            wanted = any(ctx.needs_input_grad[:3])
            total += _into_gradient(product_CV, head, chunk_loss(rows), mask_C, grad_bias, wanted)
            if grad_hidden is not None:
                grad_hidden[rows] = product_CV @ weight
            if grad_weight is not None:
                _add_products(grad_weight, product_CV, hidden_CD, first=start == 0)
        ctx.gradients = (grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = (hidden_ND.dtype, weight_VD.dtype, None if bias_V is None else bias_V.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        scaled = tuple(
            None if gradient is None else (gradient * outer[0]).to(dtype)
            for gradient, dtype in zip(ctx.gradients, ctx.dtypes, strict=True)
        )
        return (*scaled, None, None, None, None)


def _add_products(total_VD: Tensor, gradient_CV: Tensor, hidden_CD: Tensor, *, first: bool) -> None:
    """Adds a chunk's gradient of the head. On a CPU a part of the vocabulary at a time stays in its cache."""
    vocabulary = len(total_VD)
    for words in word_slices(vocabulary) if total_VD.device.type == "cpu" else (slice(0, vocabulary),):
        part = gradient_CV[:, words].T @ hidden_CD
        if first:
            total_VD[words] = part
        else:
            total_VD[words].add_(part)


def _into_gradient(
    product_CV: Tensor, head: Head, loss: ChunkLoss, mask_C: Tensor | None, grad_bias: Tensor | None, wanted: bool
) -> Tensor:
    """The summed loss of a chunk. Overwrites `product_CV` with the gradient at the product, if one is wanted."""
    chunk, vocabulary = product_CV.shape
    blocked = product_CV.device.type == "cpu"
    step = max(1, _BLOCK_BYTES // (4 * vocabulary)) if blocked else chunk
    work = block_step if blocked else _compiled_block_step()
    total = torch.zeros((), dtype=torch.promote_types(product_CV.dtype, torch.float32), device=product_CV.device)
    for start in range(0, chunk, step):
        rows = slice(start, min(start + step, chunk))
        product_RV = product_CV[rows]
        part, gradient_RV = work(product_RV, head, loss.block(rows), None if mask_C is None else mask_C[rows])
        total += part
        if wanted:
            product_RV.copy_(gradient_RV)
        if grad_bias is not None:
            grad_bias += gradient_RV.sum(dim=0)
    return total


def block_step(product_RV: Tensor, head: Head, loss: ChunkLoss, mask_R: Tensor | None) -> tuple[Tensor, Tensor]:
    """Summed loss, and gradient at the student's matrix product, from that product."""
    logits_RV = head.finish(product_RV)
    loss_R, gradient_RV = loss(logits_RV.log_softmax(dim=-1))
    if mask_R is not None:
        loss_R = loss_R.masked_fill(~mask_R, 0.0)
        gradient_RV = gradient_RV.masked_fill_(~mask_R[:, None], 0.0)
    return loss_R.sum(), head.pull_back(gradient_RV, logits_RV)


@cache
def _compiled_block_step() -> Callable[[Tensor, Head, ChunkLoss, Tensor | None], tuple[Tensor, Tensor]]:
    return torch.compile(block_step)
