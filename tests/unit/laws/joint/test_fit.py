"""Fits to readings of known laws: errors, robustness, what intervals cover, and what is not determined."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from keeptune.errors import ConfigError
from keeptune.laws.forms import LLAMA_2_7B_PARAMETERS_PER_RANK, JointLaw
from keeptune.laws.joint.fit import JointFit, LineFit
from keeptune.laws.readings import Runs
from tests.helpers.laws import OPENORCA, readings

NEWS = JointLaw.published("llama2-7b-chat/news")
MIDDLE = {"P": 45.0 * LLAMA_2_7B_PARAMETERS_PER_RANK, "N": 150.0}


def relative(said: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.abs(np.asarray(said) / np.asarray(true) - 1)


@pytest.mark.parametrize("law", [OPENORCA, NEWS])
def test_readings_without_noise_give_the_law_back_far_beyond_them(law: JointLaw) -> None:
    fit = JointFit(bootstraps=0).fit(readings(noise=0, law=law))
    places = {"P": np.array([1, 45, 2048]) * LLAMA_2_7B_PARAMETERS_PER_RANK, "N": np.array([20.0, 150.0, 2000.0])}
    for said, true in zip(fit.predict(**places), law.predict(**places), strict=True):
        assert relative(said.value, true).max() < 1e-6
    assert fit.params_["alpha_ft"] == pytest.approx(law.alpha_ft, rel=1e-3)
    assert fit.params_["rho"] == pytest.approx(law.rho, rel=1e-3)
    assert fit.r2_ == pytest.approx((1.0, 1.0))


def test_two_percent_noise_leaves_predictions_within_one_percent() -> None:
    runs = readings(seed=5)
    fit = JointFit(bootstraps=0).fit(runs)
    for said, true in zip(fit.predict(P=runs.P, N=runs.N), OPENORCA.predict(P=runs.P, N=runs.N), strict=True):
        assert np.median(relative(said.value, true)) < 0.01


def test_wild_readings_do_not_carry_the_fit_away() -> None:
    runs = readings(seed=1)
    wild = np.random.default_rng(0).random(len(runs)) < 0.05
    spoilt = dataclasses.replace(
        runs, L_ft=np.where(wild, 3 * runs.L_ft, runs.L_ft), L_f=np.where(wild, 0.2 * runs.L_f, runs.L_f)
    )
    fit = JointFit(bootstraps=0).fit(spoilt)
    for said, true in zip(fit.predict(P=runs.P, N=runs.N), OPENORCA.predict(P=runs.P, N=runs.N), strict=True):
        assert np.median(relative(said.value, true)) < 0.01


def test_intervals_hold_the_law_about_as_often_as_they_say() -> None:
    true = OPENORCA.predict(**MIDDLE)
    held = []
    for seed in range(10):
        said = JointFit(bootstraps=60).fit(readings(seed=seed)).predict(**MIDDLE, interval=0.9)
        held += [band.low <= value <= band.high for band, value in zip(said, true, strict=True)]
    # 20 draws with p = 0.9: fewer than 14 are seen once in 400 times.
    assert sum(held) >= 14


def test_intervals_of_new_readings_hold_new_readings() -> None:
    fit = JointFit(bootstraps=40).fit(readings(seed=2))
    new = readings(seed=3)
    said = fit.predict(P=new.P, N=new.N, interval=0.9)
    for band, seen in zip(said, (new.L_ft, new.L_f), strict=True):
        assert 0.85 <= np.mean((band.reading_low <= seen) & (seen <= band.reading_high)) <= 0.97
        assert np.mean((band.low <= seen) & (seen <= band.high)) < 0.6


def test_runs_that_differ_as_wholes_widen_the_interval() -> None:
    def width(noise: float, apart: float) -> float:
        fit = JointFit(bootstraps=60).fit(readings(seed=4, noise=noise, apart=apart))
        band = fit.predict(**MIDDLE, interval=0.9).L_ft
        return float(band.high - band.low)

    # The variance of a reading is the same; as runs differ, 22 readings of one tell little more than one.
    assert width(0.004, 0.02) > 2 * width(np.hypot(0.004, 0.02), 0.0)


def test_exponents_that_trade_off_are_not_called_known() -> None:
    fit = JointFit(bootstraps=60).fit(readings(seed=0))
    assert {"rho", "alpha_ft", "alpha_f"} <= set(fit.weak_)
    for name, (low, high) in fit.spread_.items():
        assert low <= high
        if name not in fit.weak_ and name not in ("s_ft", "t_f"):
            assert high <= 2 * low
    assert 1 < fit.condition_ < 1e4


def test_few_ranks_few_steps_and_learning_without_forgetting_give_no_joint_law() -> None:
    runs = readings()
    with pytest.raises(ConfigError, match="have 2 and 22"):
        JointFit().fit(readings(ranks=(8, 64)))
    with pytest.raises(ConfigError, match="have 6 and 2"):
        JointFit().fit(runs.where(runs.N < 70))
    with pytest.raises(ConfigError, match="4 readings cannot determine 11"):
        JointFit().fit(runs.where(np.isin(np.arange(len(runs)), (0, 24, 52, 90))))
    with pytest.raises(ConfigError, match="does not rise"):
        JointFit().fit(dataclasses.replace(runs, L_f=1.0 + 0.1 * runs.L_ft))


def test_the_line_is_that_of_least_squares_where_nothing_is_wild() -> None:
    generator = np.random.default_rng(0)
    L_ft = generator.uniform(0.6, 0.8, 400)
    L_f = 2.0 - 1.7 * L_ft + 0.01 * generator.standard_normal(400)
    run = np.arange(400) // 20
    runs = Runs(P=np.ones(400), N=np.ones(400), L_ft=L_ft, L_f=L_f, run=run)
    fit, oracle = LineFit().fit(runs), stats.linregress(L_ft, L_f)
    assert fit.law_.c == pytest.approx(-oracle.slope, abs=oracle.stderr)
    assert fit.r2_ == pytest.approx(oracle.rvalue**2, abs=1e-3)
    low, high = fit.spread_["c"]
    assert low < 1.7 < high
    assert high - low == pytest.approx(2 * 1.645 * oracle.stderr, rel=0.4)
    band = fit.predict(L_ft=[0.6, 0.7], interval=0.9)
    assert np.all(band.low <= 2.0 - 1.7 * np.array([0.6, 0.7]))
    assert np.all(band.reading_high - band.reading_low > 2 * 1.5 * 0.01)
    wild = dataclasses.replace(runs, L_f=np.where(np.arange(400) % 20 == 0, 5.0, L_f))
    assert LineFit(bootstraps=0).fit(wild).law_.c == pytest.approx(1.7, abs=0.1)
    assert abs(stats.linregress(L_ft, wild.L_f).slope + 1.7) > 0.1


def test_a_line_needs_three_readings_and_one_run_has_no_interval() -> None:
    runs = readings()
    with pytest.raises(ConfigError, match="2 readings with 2 values of L_ft and 2 of L_f do not determine a line"):
        LineFit().fit(runs.where(np.arange(len(runs)) < 2))
    for loss in ("L_ft", "L_f"):
        with pytest.raises(ConfigError, match=f"1 (values )?of {loss}"):
            LineFit().fit(dataclasses.replace(runs, **{loss: np.full(len(runs), 0.7)}))
    with pytest.raises(ConfigError, match="replicates is -1"):
        LineFit(bootstraps=-1).fit(runs)
    with pytest.raises(ConfigError, match="seed is -1"):
        LineFit(seed=-1).fit(runs)
    alone = LineFit().fit(runs.where(runs.run == 0))
    assert alone.predict(L_ft=0.7, interval=0.9).low is None
    assert alone.spread_ == {}
    with pytest.raises(ConfigError, match="interval is 90"):
        alone.predict(L_ft=0.7, interval=90)


def test_the_same_seed_gives_the_same_intervals() -> None:
    runs = readings(seed=6)
    one, two, other = (
        JointFit(bootstraps=5, seed=seed).fit(runs).predict(**MIDDLE, interval=0.9).L_f for seed in (1, 1, 2)
    )
    assert one == two
    assert one.low != other.low
