"""The fused objective equals the dense reference; the dense reference equals torch's own functions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from keeptune.errors import ConfigError
from keeptune.objective import (
    DIVERGENCES,
    Head,
    HiddenTarget,
    TopKTarget,
    forward_kl,
    fused_divergence,
    fused_next_token_ce,
    jensen_shannon,
    next_token_ce,
    reverse_kl,
    top_k,
)
from keeptune.objective import fused as fused_module
from keeptune.objective import head as head_module
from keeptune.objective.fused import MEMORY_BUDGET, DivergenceLoss, block_step, chunk_size

N, V, D = 37, 53, 16


def fused_kl(
    hidden: Tensor, student: Head, teacher_hidden: Tensor, teacher: Head, mask: Tensor | None = None, chunk: int = 8
) -> Tensor:
    target = HiddenTarget(hidden_ND=teacher_hidden, head=teacher)
    return fused_divergence(hidden, student, target, mask_N=mask, chunk_tokens=chunk)


@pytest.fixture(params=[1, 1000])
def rows_a_block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_module, "_BLOCK_BYTES", 4 * V * request.param)


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
@pytest.mark.usefixtures("rows_a_block")
def test_fused_kl_equals_dense_in_value_and_gradients(head: dict[str, object], chunk: int, masked: bool) -> None:
    hidden, student, teacher_hidden, teacher, mask, _ = problem(**dict(head))
    mask_or_none = mask if masked else None
    dense = forward_kl(student.logits(hidden), teacher.logits(teacher_hidden), mask_or_none)
    fused = fused_kl(hidden, student, teacher_hidden, teacher, mask_or_none, chunk)
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
    target = HiddenTarget(hidden_ND=teacher_hidden, head=teacher)
    if beta is None:
        dense = reverse_kl(*logits, mask_or_none)
        fused = fused_divergence(hidden, student, target, "reverse_kl", mask_N=mask_or_none, chunk_tokens=8)
    else:
        dense = jensen_shannon(*logits, beta, mask_or_none)
        fused = fused_divergence(
            hidden, student, target, "jensen_shannon", beta=beta, mask_N=mask_or_none, chunk_tokens=8
        )
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
    fused = fused_next_token_ce(hidden, student, target, mask_N=mask_or_none, chunk_tokens=8)
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
        return fused_kl(h, head, teacher_hidden[:5], teacher, mask[:5], 2)

    def ce(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        head = Head(weight_VD=weight, bias_V=bias, scale=0.5, softcap=4.0)
        return fused_next_token_ce(h, head, target[:5], mask_N=mask[:5], chunk_tokens=2)

    for function in (kl, ce):
        assert torch.autograd.gradcheck(function, (small, student.weight_VD, student.bias_V))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_identical_distributions_give_exactly_zero(dtype: torch.dtype, size: float) -> None:
    hidden, student, *_ = problem(dtype)
    large = (hidden.detach() * size).requires_grad_()
    frozen = student.detached()
    loss = fused_kl(large, student, large.detach(), frozen)
    assert loss.item() == 0.0
    assert all(torch.count_nonzero(g) == 0 for g in gradients(loss, large, student))


def test_values_stay_exact_for_huge_logits() -> None:
    hidden = torch.eye(2, dtype=torch.float32).requires_grad_()
    student = Head(weight_VD=torch.tensor([[1e4, 0.0], [0.0, 1e4], [-1e4, 0.0]]).requires_grad_())
    teacher = Head(weight_VD=torch.tensor([[1e4, 0.0], [0.0, 1e4], [1e4, 0.0]]))
    # Row 0: the teacher splits evenly between tokens 0 and 2; the student gives token 2 a log-probability of −2e4.
    expected = -torch.tensor(2.0).log() + 0.5 * 2e4
    kl = fused_kl(hidden, student, hidden.detach(), teacher)
    torch.testing.assert_close(kl, expected, rtol=1e-6, atol=0.0)


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, student, teacher_hidden, teacher, *_ = problem()
    frozen = student.detached()
    fused_kl(hidden, frozen, teacher_hidden, teacher).backward()
    assert frozen.weight_VD.grad is None
    assert hidden.grad is not None


def test_under_autocast_fused_equals_dense() -> None:
    hidden, student, teacher_hidden, teacher, mask, _ = problem(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        dense = forward_kl(student.logits(hidden), teacher.logits(teacher_hidden), mask)
        fused = fused_kl(hidden, student, teacher_hidden, teacher, mask, 8)
    torch.testing.assert_close(fused, dense, rtol=1e-5, atol=1e-5)
    for ours, reference in zip(gradients(fused, hidden, student), gradients(dense, hidden, student), strict=True):
        torch.testing.assert_close(ours, reference, rtol=3e-2, atol=3e-2)


def coarse(log_probs: Tensor, ids: Tensor) -> Tensor:
    """Log-probabilities of the kept words and of all others together: an independent oracle in plain torch."""
    kept = log_probs.gather(-1, ids)
    others = torch.ones_like(log_probs, dtype=torch.bool).scatter(-1, ids, False)
    tail = (log_probs.exp() * others).sum(dim=-1, keepdim=True).log()
    return torch.cat([kept, tail], dim=-1)


@pytest.mark.parametrize("k", [1, 5, V - 1])
@pytest.mark.parametrize("kind", ["kl", "reverse_kl", "jensen_shannon"])
@pytest.mark.parametrize("head", HEADS)
def test_a_top_k_target_is_the_divergence_between_the_two_coarse_distributions(
    head: dict[str, object], kind: str, k: int
) -> None:
    hidden, student, teacher_hidden, teacher, mask, _ = problem(**dict(head))
    ids, kept = top_k(teacher.logits(teacher_hidden).log_softmax(-1), k)
    fused = fused_divergence(
        hidden, student, TopKTarget(ids_NK=ids, log_probs_NK1=kept), kind, beta=0.3, mask_N=mask, chunk_tokens=8
    )
    # Log-probabilities are logits of the same distribution, so the dense functions take the coarse ones.
    logits = coarse(student.logits(hidden).log_softmax(-1), ids), kept
    dense = {
        "kl": lambda: forward_kl(*logits, mask),
        "reverse_kl": lambda: reverse_kl(*logits, mask),
        "jensen_shannon": lambda: jensen_shannon(*logits, 0.3, mask),
    }[kind]()
    torch.testing.assert_close(fused, dense, rtol=1e-9, atol=1e-9)
    for ours, reference in zip(gradients(fused, hidden, student), gradients(dense, hidden, student), strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-7, atol=1e-9)


def test_a_top_k_divergence_grows_with_k_to_the_full_one() -> None:
    hidden, student, teacher_hidden, teacher, *_ = problem()
    log_probs = teacher.logits(teacher_hidden).log_softmax(-1)
    full = fused_kl(hidden, student, teacher_hidden, teacher)
    coarser = []
    for k in (1, 4, 16, V - 1):
        ids, kept = top_k(log_probs, k)
        coarser.append(fused_divergence(hidden, student, TopKTarget(ids_NK=ids, log_probs_NK1=kept)).item())
    assert coarser == sorted(coarser)
    assert coarser[0] < 0.9 * full.item()
    assert coarser[-1] == pytest.approx(full.item(), rel=1e-9)


def test_a_top_k_target_survives_half_precision_and_a_vanishing_tail() -> None:
    student = Head(weight_VD=torch.eye(4) * 100.0)
    hidden = torch.eye(4)[:2].requires_grad_()
    ids, kept = top_k((torch.eye(4)[:2] * 100.0).log_softmax(-1), 2)
    target = TopKTarget(ids_NK=ids.int(), log_probs_NK1=kept.half())
    loss = fused_divergence(hidden, student, target)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-3)
    assert hidden.grad is not None and torch.isfinite(hidden.grad).all()


def test_a_chunk_fits_its_budget() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for vocabulary in (32_000, 128_256, 262_144):
        tokens = chunk_size(65_536, vocabulary, torch.bfloat16, cpu)
        assert tokens % 64 == 0
        assert tokens * vocabulary * 4 <= MEMORY_BUDGET["cpu"]
        assert (tokens + 64) * vocabulary * 4 > MEMORY_BUDGET["cpu"]
        assert chunk_size(65_536, vocabulary, torch.bfloat16, cuda) * vocabulary * 20 <= MEMORY_BUDGET["cuda"]
    assert chunk_size(10, 32_000, torch.bfloat16, cpu) == 10
    assert chunk_size(65_536, 10**9, torch.bfloat16, cpu) == 64


def test_bad_settings_are_refused() -> None:
    hidden, student, teacher_hidden, teacher, *_ = problem()
    target = HiddenTarget(hidden_ND=teacher_hidden, head=teacher)
    with pytest.raises(ConfigError, match="unknown divergence"):
        fused_divergence(hidden, student, target, "forward_kl")
    with pytest.raises(ConfigError, match="beta is 1"):
        fused_divergence(hidden, student, target, "jensen_shannon", beta=1.0)


@torch.no_grad()
def test_the_compiled_block_equals_the_eager_one() -> None:
    hidden, student, teacher_hidden, teacher, mask, _ = problem(torch.float32, bias=True, softcap=4.0)
    product = student.product(hidden).detach()
    target = HiddenTarget(hidden_ND=teacher_hidden, head=teacher)
    loss = DivergenceLoss(DIVERGENCES["kl"], 0.5, target.chunk(slice(0, N)))
    # The graph alone: what a GPU generates from it is tested there, and no C++ compiler is asked of this machine.
    compiled = torch.compile(block_step, backend="aot_eager", fullgraph=True)
    for ours, reference in zip(
        compiled(product, student, loss, mask), block_step(product, student, loss, mask), strict=True
    ):
        torch.testing.assert_close(ours, reference)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("words", [13, 16, 64])
def test_words_taken_a_part_at_a_time_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, words: int, dtype: torch.dtype
) -> None:
    found = []
    for part in (8192, words):
        monkeypatch.setattr(head_module, "CACHED_WORDS", part)
        hidden, student, teacher_hidden, teacher, mask, _ = problem(torch.float32, bias=True, scale=2.0)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = fused_kl(hidden, student, teacher_hidden, teacher, mask)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            product = teacher.product(teacher_hidden)
        assert product.dtype == dtype
        found.append([loss, product, *gradients(loss, hidden, student)])
    assert all(torch.equal(left, right) for left, right in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("vocabulary", "lengths"), [(1, [1]), (8191, [8191]), (8192, [8192]), (16_383, [16_383]), (16_385, [8192, 8193]),
                                (49_153, [8192] * 5 + [8193])],
)  # fmt: skip
def test_no_part_of_the_vocabulary_is_small(vocabulary: int, lengths: list[int]) -> None:
    parts = list(head_module.word_slices(vocabulary))
    assert [part.stop - part.start for part in parts] == lengths
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == vocabulary
