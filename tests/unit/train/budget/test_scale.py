"""The change of the weights is scaled until KL is what a budget aims at: in few readings, exact in the weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from keeptune.train.budget.scale import GOAL, LEAST, MOST, find_scale, scale_change, scale_to, trainable_weights
from tests.helpers.models import make_model

KINDS: dict[str, Callable[[float], float]] = {
    "square": lambda scale: 0.02 * scale**2,
    "floor": lambda scale: 0.003 + 0.017 * scale**2,
    "steeper": lambda scale: 0.02 * scale**2.6,
    "flatter": lambda scale: 0.02 * scale**1.5,
    "bent": lambda scale: 0.02 * math.expm1(0.7 * scale**2) / math.expm1(0.7),
}


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("goal", [0.012, 0.015, 0.019, 0.0199, 0.021, 0.023])
def test_the_goal_is_met_in_few_readings(kind: str, goal: float) -> None:
    asked: list[float] = []

    def kl_at(scale: float) -> float:
        asked.append(scale)
        return KINDS[kind](scale)

    scale, kl = find_scale(kl_at, KINDS[kind](1.0), goal)
    assert len(asked) <= 3
    assert kl == KINDS[kind](scale)
    assert LEAST <= scale <= MOST
    if scale not in (LEAST, MOST):
        assert kl == pytest.approx(goal, rel=0.03)


@pytest.mark.parametrize(
    ("kl", "goal", "scale"),
    [(0.0201, 0.02, 1.0), (1.0, 0.001, LEAST), (0.001, 1.0, MOST), (0.0, 0.02, 1.0), (math.nan, 0.02, 1.0)],
)
def test_out_of_reach_it_stops_at_its_bounds(kl: float, goal: float, scale: float) -> None:
    found = find_scale(lambda scale: kl * scale**2, kl, goal)
    assert found[0] == scale
    assert found[1] == pytest.approx(kl * scale**2, nan_ok=True)


def moved(model: nn.Module) -> nn.Module:
    torch.manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.01 * torch.randn_like(weight))
    return model


@pytest.mark.parametrize("lora", [False, True])
def test_weights_are_scaled_and_nothing_else(lora: bool) -> None:
    model: nn.Module = make_model()
    if lora:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], use_dora=True))
    start = trainable_weights(model)
    before = {name: value.clone() for name, value in moved(model).named_parameters()}
    scale_change(model, start, 0.5)
    for name, value in model.named_parameters():
        expected = (start[name] + before[name]) / 2 if name in start else before[name]
        torch.testing.assert_close(value, expected)
    assert bool(start) and not any("lora_A" in name for name in start)
    assert all(name in start for name, value in before.items() if value.requires_grad and "lora_A" not in name)


def test_the_weights_are_left_where_kl_was_read_last() -> None:
    model = make_model()
    start = trainable_weights(model)
    tuned = {name: value.detach().clone() for name, value in moved(model).named_parameters()}

    @torch.no_grad()
    def distance() -> float:
        return sum(float((value - start[name]).square().sum()) for name, value in model.named_parameters())

    first = distance()
    scale = scale_to(lambda by: scale_change(model, start, by), distance, 0.6 * first / GOAL)
    assert scale == pytest.approx(math.sqrt(0.6), rel=0.02)
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, start[name] + scale * (tuned[name] - start[name]), rtol=1e-4, atol=1e-6)
