"""The registry of divergences: every entry's block form is its dense form, and a new entry needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from keeptune.errors import ConfigError
from keeptune.objective import DIVERGENCES, Divergence, Head, HiddenTarget, fused_divergence, register_divergence

N, V, D = 11, 23, 8


def total_variation(student_logits_NV: Tensor, teacher_logits_NV: Tensor, mask_N: Tensor | None = None) -> Tensor:
    """Σ_n ½ Σ_v |π_v − θ_v|."""
    gap_NV = student_logits_NV.softmax(-1) - teacher_logits_NV.softmax(-1)
    distance_N = gap_NV.abs().sum(-1) / 2
    return distance_N.sum() if mask_N is None else distance_N[mask_N].sum()


def total_variation_block(student_RV: Tensor, teacher_RV: Tensor) -> tuple[Tensor, Tensor]:
    probability_RV = student_RV.exp()
    gap_RV = probability_RV - teacher_RV.exp()
    sign_RV = gap_RV.sign() / 2
    mean_R1 = (probability_RV * sign_RV).sum(-1, keepdim=True)
    return gap_RV.abs().sum(-1) / 2, probability_RV * (sign_RV - mean_R1)


def skew_kl(student_logits_NV: Tensor, teacher_logits_NV: Tensor, beta: float, mask_N: Tensor | None = None) -> Tensor:
    """Σ_n KL(π‖β·π + (1 − β)·θ)."""
    teacher_NV, student_NV = teacher_logits_NV.softmax(-1), student_logits_NV.softmax(-1)
    kl_N = (teacher_NV * (teacher_NV / (beta * teacher_NV + (1 - beta) * student_NV)).log()).sum(-1)
    return kl_N.sum() if mask_N is None else kl_N[mask_N].sum()


def skew_kl_block(student_RV: Tensor, teacher_RV: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    teacher_RV, probability_RV = teacher_RV.exp(), student_RV.exp()
    mixture_RV = beta * teacher_RV + (1 - beta) * probability_RV
    slope_RV = -(1 - beta) * teacher_RV / mixture_RV
    mean_R1 = (probability_RV * slope_RV).sum(-1, keepdim=True)
    return (teacher_RV * (teacher_RV / mixture_RV).log()).sum(-1), probability_RV * (slope_RV - mean_R1)


@pytest.fixture
def registered() -> Iterator[None]:
    """Two more divergences, taken out again afterwards."""
    register_divergence("total_variation", Divergence(total_variation, total_variation_block))
    register_divergence("skew_kl", Divergence(skew_kl, skew_kl_block, takes_beta=True))
    yield
    del DIVERGENCES["total_variation"], DIVERGENCES["skew_kl"]


def problem() -> tuple[Tensor, Head, HiddenTarget, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    student = Head(weight_VD=draw(V, D).requires_grad_(), bias_V=draw(V).requires_grad_(), softcap=4.0)
    target = HiddenTarget(hidden_ND=draw(N, D), head=Head(weight_VD=draw(V, D)))
    return draw(N, D).requires_grad_(), student, target, torch.rand(N, generator=generator) > 0.3


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", ["kl", "reverse_kl", "jensen_shannon", "total_variation", "skew_kl"])
def test_the_fused_form_of_every_entry_is_autograd_of_its_dense_form(name: str) -> None:
    entry, (hidden, student, target, mask) = DIVERGENCES[name], problem()
    logits = student.logits(hidden), target.head.logits(target.hidden_ND)
    dense = entry.dense(*logits, *([0.3] if entry.takes_beta else []), mask_N=mask)
    fused = fused_divergence(hidden, student, target, name, beta=0.3, mask_N=mask, chunk_tokens=4)
    torch.testing.assert_close(fused, dense, rtol=1e-12, atol=1e-12)
    inputs = [hidden, student.weight_VD, student.bias_V]
    for ours, reference in zip(torch.autograd.grad(fused, inputs), torch.autograd.grad(dense, inputs), strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("registered")
def test_a_registered_divergence_trains() -> None:
    hidden, student, target, _ = problem()
    optimizer = torch.optim.Adam([hidden], lr=0.1)
    losses = []
    for _ in range(60):
        loss = fused_divergence(hidden, student, target, "skew_kl")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.usefixtures("registered")
def test_a_name_is_registered_once() -> None:
    with pytest.raises(ConfigError, match="'skew_kl' is already registered"):
        register_divergence("skew_kl", DIVERGENCES["kl"])
    assert "skew_kl" in DIVERGENCES
