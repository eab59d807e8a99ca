"""The budget's controller on simulated runs: it lands inside, never at its bounds, and goes on to the same bits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from keeptune.errors import ConfigError
from keeptune.train.bounds import HIGHEST, LOWEST
from keeptune.train.budget.controller import AIM, LambdaController
from keeptune.train.budget.scale import MOST

NOISE = 0.3  # of the KL of a few rows, relative
EVERY = 20


def rate(step: int, steps: int) -> float:
    """Warm-up over a twentieth of the run, then a cosine."""
    warm = max(steps // 20, 1)
    return step / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


class Lag:
    """√KL goes to a power of λ with a lag that grows as the learning rate decays; steps shake, λ or not."""

    def __init__(self, random: np.random.Generator) -> None:
        self.pull, self.power = random.uniform(0.05, 0.3), random.uniform(0.4, 0.9)
        self.lag, self.floor = random.uniform(3, 8), random.uniform(0.0, 0.01)
        self.root = self.shaken = 0.0

    def step(self, lambda_: float, rate: float) -> float:
        self.root += (self.pull * lambda_**-self.power - self.root) * min(rate / self.lag, 1.0)
        self.shaken += (self.floor * rate - self.shaken) * rate / self.lag
        return self.kl

    @property
    def kl(self) -> float:
        return self.root**2 + self.shaken


class Descent:
    """Adam on two quadratic forms: the task's, and λ times that of the KL."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random
        self.hold, self.task = np.logspace(0, -2, 30), random.permutation(np.logspace(0, -1.5, 30))
        self.goal = random.normal(size=30) * 0.4
        self.weights = self.mean = self.square = np.zeros(30)
        self.count = 0

    def step(self, lambda_: float, rate: float) -> float:
        gradient = self.task * (self.weights - self.goal) + lambda_ * self.hold * self.weights
        gradient = gradient + self.random.normal(size=30) * 0.2 * np.abs(gradient).mean()
        gradient = gradient / max(float(np.linalg.norm(gradient)), 1.0)
        self.count += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        direction = (self.mean / (1 - 0.9**self.count)) / (np.sqrt(self.square / (1 - 0.999**self.count)) + 1e-8)
        self.weights = self.weights - 0.04 * rate * direction
        return self.kl

    @property
    def kl(self) -> float:
        return float(0.5 * (self.hold * self.weights**2).sum())


Plant = Lag | Descent


def simulate(
    plant: Plant, bound: float, random: np.random.Generator, *, start: float, steps: int, learned: float = 0.0
) -> list[float]:
    """λ at every step; the KL that training sees is `learned` (in logarithms) too low at the end."""
    budget, walked = LambdaController(bound, start=start, steps=steps), []
    for step in range(steps):
        walked.append(budget.lambda_)
        seen = plant.kl * random.lognormal(-(NOISE**2) / 2 - learned * step / steps, NOISE)
        plant.step(budget.lambda_, rate(step, steps))
        budget.update(seen)
        if (step + 1) % EVERY == 0:
            budget.compare(plant.kl, rounds=(3.0 if learned else 0.5) * (step + 1) / steps)
    return walked


def ends(
    make: Callable[[np.random.Generator], Plant], bound: float, steps: int
) -> tuple[list[float], list[list[float]]]:
    """KL at the end as shares of the budget, and λ on the way, of 20 runs."""
    shares, walks = [], []
    for seed in range(20):
        random = np.random.default_rng(seed)
        plant = make(random)
        walks.append(simulate(plant, bound, random, start=[0.5, 1.0, 3.0][seed % 3], steps=steps))
        shares.append(plant.kl / bound)
    return shares, walks


@pytest.mark.parametrize(("make", "bound"), [(Lag, 0.01), (Lag, 0.02), (Lag, 0.05), (Descent, 0.02), (Descent, 0.05)])
def test_it_lands_near_what_it_aims_at(make: Callable[[np.random.Generator], Plant], bound: float) -> None:
    shares, walks = ends(make, bound, 400)
    assert sum(0.7 <= share <= 1.0 for share in shares) >= 17, shares
    assert np.median(shares) == pytest.approx(AIM, abs=0.1)
    assert all(LOWEST * 2 < lambda_ < HIGHEST / 1.1 for walk in walks for lambda_ in walk)
    assert np.median([np.std(np.log(walk[200:])) for walk in walks]) < 0.4


@pytest.mark.parametrize("make", [Lag, Descent])
@pytest.mark.parametrize("steps", [40, 60, 100])
def test_short_runs_end_where_scaling_costs_little(make: Callable[[np.random.Generator], Plant], steps: int) -> None:
    shares, _ = ends(make, 0.05, steps)
    assert sum(AIM / MOST**2 <= share <= AIM / 0.7**2 for share in shares) >= 12, shares


@pytest.mark.parametrize("steps", [160, 400])
def test_a_pool_that_is_learned_does_not_hide_what_is_forgotten(steps: int) -> None:
    shares = []
    for seed in range(20):
        random = np.random.default_rng(seed)
        plant = Lag(random)
        simulate(plant, 0.02, random, start=1.0, steps=steps, learned=0.7)  # at the end half of the KL is seen
        shares.append(plant.kl / 0.02)
    assert np.median(shares) < 1.25
    assert np.mean([share < 1.4 for share in shares]) >= 0.9


def test_early_on_lambda_stays_where_it_starts() -> None:
    budget = LambdaController(0.02, start=1.0, steps=400)
    for step in range(40):  # KL has yet to grow
        budget.update(2e-6 * step**2)
    assert budget.lambda_ == pytest.approx(1.0, rel=0.05)


def test_where_the_task_does_not_pull_lambda_falls_and_comes_back() -> None:
    budget = LambdaController(0.02, start=1.0, steps=1000)
    for _ in range(900):
        budget.update(1e-4)
    lowest = budget.lambda_
    assert LOWEST <= lowest < 0.01
    for _ in range(60):  # an integral that had gone on winding would take hundreds of steps
        budget.update(0.2)
    assert budget.lambda_ > 10 * lowest


@pytest.mark.parametrize(("start", "kl", "bound"), [(90.0, 1.0, HIGHEST), (0.002, 1e-6, LOWEST)])
def test_at_a_bound_the_integral_waits(start: float, kl: float, bound: float) -> None:
    budget = LambdaController(0.02, start=start, steps=100)
    for _ in range(60):
        budget.update(kl)
    assert budget.lambda_ == pytest.approx(bound)
    for _ in range(25):
        budget.update(0.02 * AIM)
    assert budget.lambda_ != pytest.approx(bound, rel=0.2)


def test_a_kl_of_zero_or_below_is_no_error() -> None:
    budget = LambdaController(0.02, start=1.0, steps=10)
    for kl in (0.0, -1e-7, 0.0):
        budget.update(kl)
        budget.compare(kl, rounds=0.1)
    assert math.isfinite(budget.lambda_)


def test_restored_it_goes_on_to_the_same_bits() -> None:
    random = np.random.default_rng(0)
    seen = (0.02 * random.lognormal(0, 0.5, 60)).tolist()
    whole, first = (LambdaController(0.02, start=2.0, steps=60) for _ in range(2))
    for step, kl in enumerate(seen[:30]):
        for budget in (whole, first):
            budget.update(kl)
            budget.compare(kl * 1.2, rounds=step / 30)
    second = LambdaController(0.02, start=2.0, steps=60)
    second.restore(json.loads(json.dumps(first.export())))
    for kl in seen[30:]:
        whole.update(kl)
        second.update(kl)
        assert second.lambda_ == whole.lambda_
    assert second.export() == whole.export()
    for other in ({"step": 1.0}, {**first.export(), "momentum": 0.0}):
        with pytest.raises(ConfigError, match="another version's"):
            second.restore(other)
