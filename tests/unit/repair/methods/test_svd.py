"""Thresholded changes against torch's own SVD, in both orientations and for low ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from keeptune.repair.methods.svd import Svd, decomposed, rounding, threshold

SHAPES = [(12, 8), (8, 12), (8, 8), (40, 5)]


def changed(shape: tuple[int, int], rank: int | None = None) -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    base, change = torch.randn(shape), 0.1 * torch.randn(shape)
    if rank is not None:
        change = 0.05 * torch.randn(shape[0], rank) @ torch.randn(rank, shape[1])
    return base, base + change


@pytest.mark.parametrize("strength", [0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_candidate_has_the_large_singular_values_alone(shape: tuple[int, int], strength: float) -> None:
    base, tuned = changed(shape)
    left, values, right = torch.linalg.svd((tuned - base).double(), full_matrices=False)
    limit = (1 / strength - 1) * threshold(values.float(), torch.Size(shape), 0.0)
    wanted = base + ((left * torch.where(values > limit, values, 0)) @ right).float()
    assert torch.allclose(Svd().weight("w", base, tuned, strength), wanted, atol=1e-5)


@pytest.mark.parametrize("beta", [1.0, 0.5, 0.1])
def test_strength_a_half_is_the_rule_of_gavish_and_donoho(beta: float) -> None:
    """Their ω is known to three digits at 1 (2.858); noise alone of a low-rank change is dropped."""
    rows, columns = 200, round(200 * beta)
    torch.manual_seed(0)
    signal = 20 * torch.randn(rows, 1) @ torch.randn(1, columns) / columns**0.5
    noise = torch.randn(rows, columns)
    base = torch.zeros(rows, columns)
    made = Svd().weight("w", base, signal + noise, 0.5)
    assert torch.linalg.matrix_rank(made, rtol=1e-4) == 1
    if beta == 1.0:
        assert threshold(torch.ones(3), torch.Size((9, 9)), 0.0) == pytest.approx(2.858, abs=0.005)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_zeros_of_a_low_rank_change_do_not_enter_the_median(shape: tuple[int, int]) -> None:
    base, tuned = changed(shape, rank=2)
    values, _ = decomposed(tuned - base)
    above = values[values > rounding(tuned)]
    assert len(above) == 2
    assert threshold(values, torch.Size(shape), rounding(tuned)) >= 1.4 * float(above.min())


def test_vectors_are_computed_once_and_kept_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, tuned = changed((12, 8))
    kept = Svd(tmp_path / "svd.safetensors")
    kept.prepare({"w": base, "b": base[0]}, {"w": tuned, "b": tuned[0]}, ("w", "b"))
    wanted = Svd().weight("w", base, tuned, 0.6)
    monkeypatch.setattr("keeptune.repair.methods.svd.decomposed", None)
    assert torch.allclose(kept.weight("w", base, tuned, 0.6), wanted, atol=1e-6)
    assert torch.allclose(kept.weight("b", base[0], tuned[0], 0.6), torch.lerp(base[0], tuned[0], 0.6))
