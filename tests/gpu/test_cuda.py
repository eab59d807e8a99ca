"""On a GPU: the compiled objective equals the dense one in double precision, samples are the base's, training holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from torch import Tensor
from transformers import masking_utils

from keeptune.audit.meter import measure
from keeptune.models.modeling import head_of
from keeptune.objective import (
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
from keeptune.replay.batch import opened_batch
from keeptune.replay.engines.torch import TorchEngine
from keeptune.replay.generate import sample_pool
from keeptune.replay.teachers import CachedHidden
from keeptune.system import free_bytes
from keeptune.train.config import KeepConfig
from keeptune.train.readings import read_rows
from keeptune.train.replay_term import replay_sum
from keeptune.train.trainers import KeepSFTTrainer
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.training import config, task_rows

N, V, D = 300, 5003, 64
DENSE = {
    "kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": lambda student, teacher, mask: jensen_shannon(student, teacher, 0.3, mask),
}


def problem(dtype: torch.dtype, **head: float) -> tuple[Tensor, Head, Tensor, Head, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to("cuda", dtype)

    student = Head(weight_VD=(draw(V, D) / 4).requires_grad_(), bias_V=draw(V).requires_grad_(), **head)
    teacher = Head(weight_VD=draw(V, D) / 4, bias_V=draw(V), **head)
    mask = (torch.rand(N, generator=generator) > 0.3).cuda()
    return draw(N, D).requires_grad_(), student, draw(N, D), teacher, mask


def gradients(loss: Tensor, hidden: Tensor, head: Head) -> list[Tensor]:
    assert head.bias_V is not None
    return list(torch.autograd.grad(loss, [hidden, head.weight_VD, head.bias_V]))


@pytest.mark.parametrize("kind", list(DENSE))
@pytest.mark.parametrize("head", [{}, {"scale": 0.5, "softcap": 20.0}])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
def test_fused_equals_dense(kind: str, head: dict[str, float], dtype: torch.dtype, tolerance: float) -> None:
    hidden, student, teacher_hidden, teacher, mask = problem(dtype, **head)
    target = HiddenTarget(hidden_ND=teacher_hidden, head=teacher)
    fused = fused_divergence(hidden, student, target, kind, beta=0.3, mask_N=mask, chunk_tokens=128)
    dense = DENSE[kind](student.logits(hidden), teacher.logits(teacher_hidden), mask)
    torch.testing.assert_close(fused, dense, rtol=tolerance, atol=tolerance)
    for ours, reference in zip(gradients(fused, hidden, student), gradients(dense, hidden, student), strict=True):
        scale = float(reference.abs().max())
        torch.testing.assert_close(ours, reference, rtol=tolerance, atol=tolerance * scale)


def test_next_token_ce_and_top_k_equal_dense() -> None:
    hidden, student, teacher_hidden, teacher, mask = problem(torch.float64)
    target_N = torch.arange(N, device="cuda") * 7 % V
    fused = fused_next_token_ce(hidden, student, target_N, mask_N=mask, chunk_tokens=128)
    torch.testing.assert_close(fused, next_token_ce(student.logits(hidden), target_N, mask))
    ids, kept = top_k(teacher.logits(teacher_hidden).log_softmax(-1), V - 1)
    whole = fused_divergence(hidden, student, TopKTarget(ids_NK=ids, log_probs_NK1=kept), mask_N=mask)
    torch.testing.assert_close(whole, forward_kl(student.logits(hidden), teacher.logits(teacher_hidden), mask))


def test_identical_distributions_give_exactly_zero() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        hidden, student, *_ = problem(dtype)
        same = HiddenTarget(hidden_ND=hidden.detach(), head=student.detached())
        assert fused_divergence(hidden, student, same).item() == 0.0


def test_memory_is_a_chunks_and_not_a_tables() -> None:
    tokens, vocabulary = 8192, 131_072
    hidden = torch.randn(tokens, 64, device="cuda", requires_grad=True)
    head = Head(weight_VD=torch.randn(vocabulary, 64, device="cuda"))
    target = HiddenTarget(hidden_ND=torch.randn(tokens, 64, device="cuda"), head=head)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.autocast("cuda", torch.bfloat16):
        fused_divergence(hidden, head, target).backward()
    assert torch.cuda.max_memory_allocated() - before < 0.5 * tokens * vocabulary * 4
    assert 0 < free_bytes("cuda") <= torch.cuda.get_device_properties(0).total_memory


def test_samples_follow_the_bases_distribution() -> None:
    model = make_model().cuda()
    tokens = TorchEngine(model).sample(rows=20_000, length=1, opening=[5], seed=0)
    with torch.no_grad():
        expected = model(torch.tensor([[5]], device="cuda")).logits[0, -1].double().softmax(-1).cpu() * 20_000
    counts = torch.bincount(tokens[:, 1], minlength=len(expected)).double()
    frequent = expected >= 5
    chi_square = float(((counts - expected)[frequent] ** 2 / expected[frequent]).sum())
    freedom = int(frequent.sum())
    assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("teacher", ["hidden", "topk", "live", "adapter"])
def test_training_on_a_gpu_keeps(tmp_path: Path, lora: bool, teacher: str) -> None:
    if teacher == "adapter" and not lora:
        pytest.skip("needs an adapter")
    predictions = teacher if teacher in ("hidden", "topk") else "none"
    pool = sample_pool(
        make_model().cuda(), make_tokenizer(), tmp_path / "pool", tokens=320, length=16, top_k=32,
        predictions=predictions,  # type: ignore[arg-type]
    )  # fmt: skip
    drift = []
    for lambda_ in (0.0, 10.0):
        run = KeepSFTTrainer(
            model=make_model(),
            args=config(tmp_path / f"{lambda_}", use_cpu=False, bf16=True, max_steps=20),
            keep=KeepConfig(replay=str(pool.folder), drift_rows=4, lambda_=lambda_, teacher=teacher),  # type: ignore[arg-type]
            train_dataset=task_rows(80),
            processing_class=make_tokenizer(),
            peft_config=LoraConfig(r=8, target_modules="all-linear") if lora else None,
        )
        run.train()
        rows = read_rows(tmp_path / f"{lambda_}" / "runs.jsonl")
        assert abs(rows[0]["KL"]) < 1e-4
        drift.append(rows[-1]["KL"])
    assert drift[1] < 0.5 * drift[0]


@pytest.mark.parametrize("openings", [(1, 1), (2, 5)])
def test_the_replay_term_never_waits_for_the_gpu(monkeypatch: pytest.MonkeyPatch, openings: tuple[int, int]) -> None:
    """Copies to the device as well, which tests/unit/train/test_synchronization.py cannot see."""
    # transformers asks once a forward pass whether rows without a mask are packed: they are not.
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda position_ids: None)
    model = make_model().cuda().train()
    teacher = CachedHidden(head_of(model).detached())
    rows = opened_batch(torch.randint(3, 259, (2, 13)), torch.tensor(openings), 8, {"hidden": torch.randn(2, 8, 32)})
    for mode in ("default", "error"):  # the first compiles
        torch.cuda.set_sync_debug_mode(mode)
        try:
            replay_sum(model, rows.to(torch.device("cuda")), teacher).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_the_meter_reads_on_a_gpu_what_it_reads_on_a_cpu() -> None:
    rows = [{"input_ids": row, "labels": row, "document": str(i)} for i, row in enumerate(task_rows(6)["input_ids"])]
    cpu = measure(make_model(), make_model(seed=1), rows).interval("kl").value
    gpu = measure(make_model().cuda(), make_model(seed=1).cuda(), rows).interval("kl").value
    assert gpu == pytest.approx(cpu, rel=0.02)
