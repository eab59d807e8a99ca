"""The law of a pilot: it predicts the runs that it was drawn from, and tells how far it is off elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keeptune.errors import ConfigError
from keeptune.plan.design import Cell
from keeptune.plan.law import (
    EQUAL,
    Candidates,
    PilotLaw,
    Prediction,
    Reach,
    candidates,
    choose,
    controlled_interval,
    frontier,
    misses,
    replay_runs,
)
from keeptune.plan.pilot import Run
from keeptune.plan.settings import WARMUP_STEPS
from keeptune.train.budget.controller import AIM
from tests.helpers.replay_laws import LAW

BASE = 1.2


def truth(P: float, N: float, lambda_: float, tokens: float) -> tuple[float, float]:
    """Task loss and KL: the KL is the square of the known law's rise."""
    losses = LAW.predict(P=P, N=N, lambda_=lambda_, tokens=tokens)
    return float(losses.L_ft), float(losses.L_f - BASE) ** 2


def run(rank: int, lambda_: float, tokens: int, seed: int) -> Run:
    generator = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = [{"N": 0, "P": 1e6, "L_ft": 5.0, "KL": 0.0, "L_f": BASE, "L_f_base": BASE}]
    for N in (2, 10, 20, 40, 60, 80):
        task, kl = truth(1e6, N, lambda_, tokens)
        noise = 1 + 0.002 * generator.standard_normal(2)
        L_f = BASE + 0.4 * kl
        rows.append({"N": N, "P": 1e6, "L_ft": task * noise[0], "KL": kl * noise[1], "L_f": L_f, "L_f_base": BASE})
    return Run(cell=Cell(rank, 1e-3, lambda_), rows=rows, tokens=tokens, wall=1.0, memory=1)


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return [run(4, 0.0, 0, 0), run(4, 0.5, 8000, 1), run(4, 5.0, 8000, 2)]


def test_readings_of_the_warm_up_are_left_out_and_kl_enters_as_its_root(runs: list[Run]) -> None:
    table = replay_runs(runs)
    assert table.N.min() > WARMUP_STEPS
    assert len(table) == 3 * 5
    assert table.L_f[0] == pytest.approx(runs[0].rows[2]["KL"] ** 0.5)


def test_the_law_predicts_a_run_between_those_of_the_pilot(runs: list[Run]) -> None:
    law = PilotLaw.fit(runs, bootstraps=20)
    task, kl = law.predict(P=1e6, N=50.0, lambda_=2.0, tokens=8000.0)
    expected = truth(1e6, 50.0, 2.0, 8000.0)
    assert task.value == pytest.approx(expected[0], rel=0.02)
    assert kl.value == pytest.approx(expected[1], rel=0.15)
    for prediction in (task, kl):
        assert 0 <= prediction.low <= prediction.value <= prediction.high
    value, low, high = law.rise_at((float(kl.value), float(kl.low), float(kl.high)))
    assert low <= value <= high
    assert value == pytest.approx(0.4 * expected[1], rel=0.15)
    assert law.as_dict()["L_f = −c·KL + s"]["params"]["c"] == pytest.approx(-0.4, rel=0.05)


def test_the_end_of_every_run_is_held_out_where_there_are_few_ranks(runs: list[Run]) -> None:
    off = misses(runs)
    assert off["unseen"] == "the end of every run"
    assert off["L_ft"] < 0.02
    with pytest.raises(ConfigError):
        misses(runs[:1])


SPREAD = 1.2


class Known:
    """A law in closed form: powers of P, N and 1 + λ."""

    def task(self, P: Any, N: Any, lambda_: Any) -> Any:
        return 1.5 + 2.0 * (P / 1e5) ** -0.05 * (N / (1 + lambda_) ** 0.2) ** -0.3

    def kl(self, P: Any, N: Any, lambda_: Any) -> Any:
        return 0.02 * (P / 1e5) ** 0.2 * N**0.5 / (1 + lambda_ / 0.3)

    def predict(self, *, P: Any, N: Any, lambda_: Any, tokens: Any) -> tuple[Prediction, Prediction]:
        task, kl = self.task(P, N, lambda_), self.kl(P, N, lambda_)
        return Prediction(task, task - 0.02, task + 0.02), Prediction(kl, kl / SPREAD, kl * SPREAD)


@pytest.fixture
def found() -> Candidates:
    reach = Reach(
        ranks=(4, 16, 64),
        parameters_per_rank=1e5,
        steps=(10, 400),
        weights=(0.3, 3.0),
        tokens=lambda steps: 100 * steps,
        seconds=lambda rank, steps, weight: steps * (2.0 if weight else 1.0) * (1 + rank / 640),
    )
    return candidates(Known(), reach)


def test_a_plan_says_what_the_law_says(found: Candidates) -> None:
    place = choose(found, 0.05)
    row = found.row(place)
    where = {"P": row["rank"] * 1e5, "N": row["steps"], "lambda_": row["lambda"]}
    assert row["task_loss"][0] == pytest.approx(Known().task(**where))
    assert row["KL"][0] == pytest.approx(Known().kl(**where))
    assert row["replay_tokens"] == 100 * row["steps"]


@pytest.mark.parametrize("budget", [0.02, 0.05, 0.1, 0.3, 1.0])
def test_the_budget_holds_and_nothing_that_holds_it_learns_more(found: Candidates, budget: float) -> None:
    row = found.row(choose(found, budget))
    assert row["KL"][0] <= AIM * budget if row["lambda"] else row["KL"][2] <= budget
    holds = (found.lambda_ > 0) & (found.kl.value <= AIM * budget)
    assert row["task_loss"][0] <= found.task.value[holds].min() + EQUAL


def test_a_larger_budget_never_plans_a_higher_task_loss(found: Candidates) -> None:
    losses = [found.task.value[choose(found, budget)] for budget in np.geomspace(0.015, 2.0, 60)]
    assert losses[0] > losses[-1] + 0.1
    # Within a hundredth of a nat the cheaper run is taken.
    hundredths = np.floor(np.array(losses) / EQUAL)
    assert (np.diff(hundredths) <= 0).all()


def test_of_runs_that_learn_alike_the_cheapest_is_planned(found: Candidates) -> None:
    place = choose(found, 0.1)
    alike = np.floor(found.task.value / EQUAL) == np.floor(found.task.value[place] / EQUAL)
    alike &= np.where(found.lambda_ > 0, found.kl.value <= AIM * 0.1, found.kl.high <= 0.1)
    assert alike.sum() > 1
    assert found.seconds[place] == found.seconds[alike].min()


def test_without_replay_the_whole_interval_must_be_within(found: Candidates) -> None:
    assert found.lambda_[choose(found, 100.0)] == 0.0
    plain = np.where(found.lambda_ == 0, found.kl.value, np.inf)
    just = float(plain.min()) * (1 + SPREAD) / 2  # the law itself is within, the interval is not
    assert found.lambda_[choose(found, just)] > 0


def test_hours_bound_the_run(found: Candidates) -> None:
    free, bound = choose(found, 0.3), choose(found, 0.3, hours=0.05)
    assert found.seconds[free] > 180 >= found.seconds[bound]
    assert found.task.value[bound] >= found.task.value[free]
    with pytest.raises(ConfigError, match=r"fits into 0\.001 hours"):
        choose(found, 0.3, hours=0.001)


def test_a_budget_out_of_reach_names_one_that_is(found: Candidates) -> None:
    with pytest.raises(ConfigError, match="no run within reach") as refused:
        choose(found, 1e-4)
    named = float(refused.value.fix.split()[2])
    assert found.kl.value[choose(found, named)] <= AIM * named
    with pytest.raises(ConfigError):
        choose(found, 0.9 * named)


def test_no_candidate_beats_the_frontier(found: Candidates) -> None:
    places = frontier(found)
    kl, task = found.kl.value[places], found.task.value[places]
    assert (np.diff(kl) >= 0).all()
    assert (np.diff(task) < 0).all()
    for other in range(len(found.rank)):
        assert not ((found.kl.value[other] < kl) & (found.task.value[other] < task)).any()


def test_steering_widens_the_interval_by_what_lambda_may_become(found: Candidates) -> None:
    place = choose(found, 0.05)
    low, high = controlled_interval(found, place, 0.05)
    assert low <= found.task.low[place]
    assert high >= found.task.high[place]
    assert high - low > 0.04
