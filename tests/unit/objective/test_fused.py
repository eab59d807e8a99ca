"""The fused objective equals the dense reference; the dense reference equals torch's own functions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from keeptune.objective import (
    Head,
    forward_kl,
    fused_forward_kl,
    fused_jensen_shannon,
    fused_next_token_ce,
    fused_reverse_kl,
    jensen_shannon,
    next_token_ce,
    reverse_kl,
)

N, V, D = 37, 53, 16


def problem(dtype: torch.dtype = torch.float64, **head: object) -> tuple[Tensor, Head, Tensor, Head, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    bias = draw(V).requires_grad_() if head.pop("bias", False) else None
    student = Head(weight_VD=draw(V, D).requires_grad_(), bias_V=bias, **head)  # type: ignore[arg-type]
    teacher = Head(weight_VD=draw(V, D), bias_V=None if bias is None else draw(V), **head)  # type: ignore[arg-type]
    mask = torch.rand(N, generator=generator) > 0.3
    target = torch.randint(0, V, (N,), generator=generator)
    return draw(N, D).requires_grad_(), student, draw(N, D), teacher, mask, target


HEADS = [{}, {"bias": True}, {"scale": 0.25}, {"softcap": 3.0}, {"bias": True, "scale": 2.0, "softcap": 5.0}]


def gradients(loss: Tensor, hidden: Tensor, head: Head) -> list[Tensor]:
    inputs = [hidden, head.weight_VD] + ([] if head.bias_V is None else [head.bias_V])
    return list(torch.autograd.grad(loss, inputs))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("chunk", [1, 8, 64])
@pytest.mark.parametrize("masked", [False, True])
def test_fused_kl_equals_dense_in_value_and_gradients(head: dict[str, object], chunk: int, masked: bool) -> None:
    hidden, student, teacher_hidden, teacher, mask, _ = problem(**dict(head))
    mask_or_none = mask if masked else None
    dense = forward_kl(student.logits(hidden), teacher.logits(teacher_hidden), mask_or_none)
    fused = fused_forward_kl(hidden, student, teacher_hidden, teacher, mask_or_none, chunk)
    torch.testing.assert_close(fused, dense, rtol=1e-12, atol=1e-12)
    for ours, reference in zip(
        gradients(3 * fused, hidden, student), gradients(3 * dense, hidden, student), strict=True
    ):
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("beta", [None, 0.1, 0.5, 0.9])
def test_fused_reverse_kl_and_jsd_equal_dense(head: dict[str, object], masked: bool, beta: float | None) -> None:
    hidden, student, teacher_hidden, teacher, mask, _ = problem(**dict(head))
    mask_or_none = mask if masked else None
    logits = student.logits(hidden), teacher.logits(teacher_hidden)
    states = hidden, student, teacher_hidden, teacher
    if beta is None:
        dense, fused = reverse_kl(*logits, mask_or_none), fused_reverse_kl(*states, mask_or_none, 8)
    else:
        dense, fused = jensen_shannon(*logits, beta, mask_or_none), fused_jensen_shannon(*states, beta, mask_or_none, 8)
    torch.testing.assert_close(fused, dense, rtol=1e-12, atol=1e-12)
    for ours, reference in zip(gradients(fused, hidden, student), gradients(dense, hidden, student), strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-11)


def test_jsd_tends_to_the_kls_at_its_ends() -> None:
    hidden, student, teacher_hidden, teacher, *_ = problem()
    logits = student.logits(hidden / 8), teacher.logits(teacher_hidden / 8)
    beta = 1e-7
    torch.testing.assert_close(jensen_shannon(*logits, beta) / beta, forward_kl(*logits), rtol=1e-4, atol=0.0)
    torch.testing.assert_close(jensen_shannon(*logits, 1 - beta) / beta, reverse_kl(*logits), rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("masked", [False, True])
def test_fused_ce_equals_dense_in_value_and_gradients(head: dict[str, object], masked: bool) -> None:
    hidden, student, _, _, mask, target = problem(**dict(head))
    mask_or_none = mask if masked else None
    dense = next_token_ce(student.logits(hidden), target, mask_or_none)
    fused = fused_next_token_ce(hidden, student, target, mask_or_none, 8)
    torch.testing.assert_close(fused, dense, rtol=1e-12, atol=1e-12)
    for ours, reference in zip(gradients(fused, hidden, student), gradients(dense, hidden, student), strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-12)


def test_dense_equals_torchs_own_functions() -> None:
    hidden, student, teacher_hidden, teacher, mask, target = problem()
    ours, theirs = student.logits(hidden), teacher.logits(teacher_hidden)
    kl = torch.nn.functional.kl_div(
        ours[mask].log_softmax(-1), theirs[mask].log_softmax(-1), reduction="sum", log_target=True
    )
    torch.testing.assert_close(forward_kl(ours, theirs, mask), kl)
    ce = torch.nn.functional.cross_entropy(ours[mask], target[mask], reduction="sum")
    torch.testing.assert_close(next_token_ce(ours, target, mask), ce)


def test_gradcheck_in_double_precision() -> None:
    hidden, student, teacher_hidden, teacher, mask, target = problem(bias=True, scale=0.5, softcap=4.0)
    small = hidden[:5].detach().requires_grad_()

    def kl(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        head = Head(weight_VD=weight, bias_V=bias, scale=0.5, softcap=4.0)
        return fused_forward_kl(h, head, teacher_hidden[:5], teacher, mask[:5], 2)

    def ce(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        head = Head(weight_VD=weight, bias_V=bias, scale=0.5, softcap=4.0)
        return fused_next_token_ce(h, head, target[:5], mask[:5], 2)

    for function in (kl, ce):
        assert torch.autograd.gradcheck(function, (small, student.weight_VD, student.bias_V))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_identical_distributions_give_exactly_zero(dtype: torch.dtype, size: float) -> None:
    hidden, student, *_ = problem(dtype)
    large = (hidden.detach() * size).requires_grad_()
    frozen = student.detached()
    loss = fused_forward_kl(large, student, large.detach(), frozen)
    assert loss.item() == 0.0
    assert all(torch.count_nonzero(g) == 0 for g in gradients(loss, large, student))


def test_values_stay_exact_for_huge_logits() -> None:
    hidden = torch.eye(2, dtype=torch.float32).requires_grad_()
    student = Head(weight_VD=torch.tensor([[1e4, 0.0], [0.0, 1e4], [-1e4, 0.0]]).requires_grad_())
    teacher = Head(weight_VD=torch.tensor([[1e4, 0.0], [0.0, 1e4], [1e4, 0.0]]))
    # Row 0: the teacher splits evenly between tokens 0 and 2; the student gives token 2 a log-probability of −2e4.
    expected = -torch.tensor(2.0).log() + 0.5 * 2e4
    kl = fused_forward_kl(hidden, student, hidden.detach(), teacher)
    torch.testing.assert_close(kl, expected, rtol=1e-6, atol=0.0)


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, student, teacher_hidden, teacher, *_ = problem()
    frozen = student.detached()
    fused_forward_kl(hidden, frozen, teacher_hidden, teacher).backward()
    assert frozen.weight_VD.grad is None
    assert hidden.grad is not None


def test_under_autocast_fused_equals_dense() -> None:
    hidden, student, teacher_hidden, teacher, mask, _ = problem(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        dense = forward_kl(student.logits(hidden), teacher.logits(teacher_hidden), mask)
        fused = fused_forward_kl(hidden, student, teacher_hidden, teacher, mask, 8)
    torch.testing.assert_close(fused, dense, rtol=1e-5, atol=1e-5)
    for ours, reference in zip(gradients(fused, hidden, student), gradients(dense, hidden, student), strict=True):
        torch.testing.assert_close(ours, reference, rtol=3e-2, atol=3e-2)
