"""Exact shares of entries, the largest of them, and a random part whose mean is the change."""

from __future__ import annotations

import pytest
import torch

from keeptune.repair.methods.sparsify import DENSITY, Dare, Trim


@pytest.mark.parametrize("strength", [0.1, 0.25, 0.5, 0.9])
def test_trim_keeps_the_share_with_the_largest_change(strength: float) -> None:
    torch.manual_seed(0)
    base = torch.randn(20, 10)
    tuned = base + torch.randn(20, 10)
    kept = Trim().weight("w", base, tuned, strength) != base
    assert int(kept.sum()) == round(strength * 200)
    size = (tuned - base).abs()
    assert size[kept].min() >= size[~kept].max()


def test_trim_keeps_the_share_among_equal_changes() -> None:
    base = torch.zeros(10, 10)
    assert int((Trim().weight("w", base, base + 1, 0.3) != base).sum()) == 30


def test_dare_keeps_the_change_in_the_mean_and_is_the_same_again() -> None:
    base, tuned = torch.zeros(200, 200), torch.ones(200, 200)
    made = Dare().weight("w", base, tuned, 0.5)
    assert torch.equal(made, Dare().weight("w", base, tuned, 0.5))
    assert not torch.equal(made, Dare().weight("v", base, tuned, 0.5))
    assert set(made.unique().tolist()) == {0.0, 0.5 / DENSITY}
    assert made.mean().item() == pytest.approx(0.5, abs=0.02)
