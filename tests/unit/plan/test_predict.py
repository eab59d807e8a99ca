"""What a plan foretells: intervals that hold the outcome in worlds whose losses are known, and how long the plan is."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from keeptune.errors import ConfigError
from keeptune.plan.design import Cell
from keeptune.plan.ladder import TARGET, Outcome
from keeptune.plan.predict import FARTHEST, WIDEST, certified_kl, plan_from, task_loss
from tests.helpers.pilots import BUDGET, World


def outcomes(losses: dict[int, list[float]], **changed: Any) -> list[Outcome]:
    world = World(seed=0)
    made = []
    for steps, values in losses.items():
        for order, loss in enumerate(values, start=1):
            made.append(replace(world.run(Cell(16, 1e-3, steps, order, 8.0)), task_loss=loss, **changed))
    return made


def worlds(count: int) -> list[World]:
    """From fast learners to slow ones, quiet and noisy."""
    generator = np.random.default_rng(1)
    draw = generator.uniform
    return [
        World(seed=seed, gain=draw(0.5, 5.0), delay=draw(3.0, 40.0), power=draw(0.2, 1.0), noise=draw(0.003, 0.03))
        for seed in range(count)
    ]


@pytest.mark.parametrize("seconds", [300.0, 1200.0])
def test_intervals_hold_the_outcome_in_nine_of_ten_worlds_and_are_narrow(seconds: float) -> None:
    held_loss = held_kl = extrapolated = wide = 0
    everywhere = worlds(60)
    for world in everywhere:
        done, _ = world.pilot(seconds, 100_000)
        plan = plan_from(done, 100_000, BUDGET)
        outcome = world.run(Cell(*plan.setting, plan.steps, 0, 8.0))
        held_loss += plan.task_loss.low <= outcome.task_loss <= plan.task_loss.high
        held_kl += plan.kl.low <= outcome.kl <= plan.kl.high
        extrapolated += plan.steps > max(run.cell.steps for run in done)
        wide += plan.task_loss.half > WIDEST
    assert held_loss >= 0.87 * len(everywhere)
    assert held_kl >= 0.9 * len(everywhere)
    assert extrapolated >= 0.5 * len(everywhere)
    assert wide <= 0.05 * len(everywhere)


def test_the_longest_run_that_can_be_foretold_is_planned() -> None:
    slow = plan_from(outcomes({16: [3.00, 3.01], 32: [2.98], 64: [2.96]}), 100_000, BUDGET)
    fast = plan_from(outcomes({16: [4.00, 4.01], 32: [3.60], 64: [3.20]}), 100_000, BUDGET)
    assert slow.steps == FARTHEST * 64
    assert 64 <= fast.steps < 128
    assert max(slow.task_loss.half, fast.task_loss.half) <= WIDEST
    assert plan_from(outcomes({16: [3.00, 3.01], 32: [2.98], 64: [2.96]}), 100, BUDGET).steps == 100


def test_where_more_steps_learn_nothing_the_best_length_is_planned() -> None:
    runs = outcomes({16: [3.0], 32: [2.5], 64: [2.7]})
    plan = plan_from(runs, 100_000, BUDGET)
    assert plan.steps == 32
    assert plan.task_loss.value == 2.5


def test_runs_of_one_length_are_planned_as_they_are() -> None:
    runs = outcomes({16: [3.0, 3.02]})
    plan = plan_from(runs, 100_000, BUDGET)
    assert plan.steps == 16
    assert plan.task_loss.low < 3.01 < plan.task_loss.high
    with pytest.raises(ValueError, match="one length"):
        task_loss(runs, 32)


@pytest.mark.parametrize("repeats", [2, 4])
def test_repeats_and_their_agreement_narrow_the_interval(repeats: int) -> None:
    once = task_loss(outcomes({32: [2.5]}), 32)
    agree = task_loss(outcomes({32: [2.5 + 0.002 * place for place in range(repeats)]}), 32)
    differ = task_loss(outcomes({32: [2.5 + 0.2 * place for place in range(repeats)]}), 32)
    assert agree.half < once.half < differ.half


def test_the_interval_grows_with_the_distance_and_the_slope() -> None:
    runs = outcomes({16: [3.0], 32: [2.8]})
    halves = [task_loss(runs, steps).half for steps in (32, 48, 64, 128)]
    assert halves == sorted(halves)
    assert task_loss(outcomes({16: [3.4], 32: [2.8]}), 64).half > task_loss(runs, 64).half
    assert task_loss(runs, 64).value < 2.8


def test_kl_is_foretold_as_the_budget_was_met() -> None:
    runs = outcomes({16: [3.0, 3.0], 32: [2.9, 2.9]}, kl=0.9 * BUDGET)
    found = certified_kl(runs, 32, BUDGET)
    assert found.value == pytest.approx(0.9 * BUDGET)
    assert found.low < 0.9 * BUDGET < found.high
    far = certified_kl([replace(run, kl=BUDGET * math.exp(run.cell.order)) for run in runs], 32, BUDGET)
    assert far.half > 3 * found.half


def test_kl_of_a_budget_that_is_not_used_may_grow_with_more_steps_only() -> None:
    runs = outcomes({16: [3.0, 3.0], 32: [2.9, 2.9]}, kl=0.05 * BUDGET)
    assert certified_kl(runs, 32, BUDGET).high < 0.1 * BUDGET
    longer = certified_kl(runs, 64, BUDGET)
    assert longer.low < longer.value == pytest.approx(0.05 * BUDGET)
    assert longer.high > TARGET * BUDGET


def test_a_budget_that_no_run_kept_is_refused_with_one_that_may_be() -> None:
    world = World(seed=0, breaks=lambda cell: True)
    runs = [world.run(Cell(16, 1e-3, steps, 1, 8.0)) for steps in (16, 32)]
    with pytest.raises(ConfigError, match=r"no run of the pilot kept KL ≤ 0\.02") as refused:
        plan_from(runs, 100, BUDGET)
    assert float(refused.value.fix.split()[2].rstrip(",")) == pytest.approx(1.5 * BUDGET / 0.85, rel=0.1)
    assert "--minutes" in refused.value.fix
