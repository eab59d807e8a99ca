"""The law of a pilot: it predicts the runs that it was drawn from, and tells how far it is off elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keeptune.errors import ConfigError
from keeptune.plan.design import Cell
from keeptune.plan.law import PilotLaw, misses, replay_runs
from keeptune.plan.pilot import Run
from keeptune.plan.settings import WARMUP_STEPS
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
