"""The replay law fitted: what fits recover, their intervals, and runs that cannot tell."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from keeptune.errors import ConfigError
from keeptune.laws.forms import Floats
from keeptune.laws.replay.fit import ReplayFit
from keeptune.laws.replay.law import ReplayLaw
from tests.helpers.laws import OPENORCA
from tests.helpers.replay_laws import LAW, readings


def test_readings_without_noise_give_the_law_back() -> None:
    fit = ReplayFit(bootstraps=0).fit(readings(noise=0))
    for name, value in dataclasses.asdict(LAW.hold).items():
        assert fit.params_[name] == pytest.approx(value, rel=1e-2)
    beyond = {"P": 1e6, "N": 200.0, "lambda_": 20.0, "tokens": 3e5}
    np.testing.assert_allclose(fit.law_.predict(**beyond), LAW.predict(**beyond), rtol=2e-3)
    assert fit.r2_ == pytest.approx((1, 1), abs=1e-6)


def test_several_ranks_are_fitted_with_the_joint_law() -> None:
    law = ReplayLaw(joint=OPENORCA, hold=LAW.hold, L_f_base=0.5)
    runs = readings(noise=0.001, law=law, P=(2e7, 8e7, 3.2e8), steps=4)
    fit = ReplayFit(bootstraps=0).fit(runs)
    where = {"P": 1.6e8, "N": 60.0, "lambda_": 0.5, "tokens": 2e4}
    np.testing.assert_allclose(fit.law_.predict(**where), law.predict(**where), atol=0.003)


def test_intervals_hold_the_law() -> None:
    where = {"P": 1e6, "N": 80.0, "lambda_": 0.5, "tokens": 16e3}
    true, held = LAW.predict(**where), []
    for seed in range(5):
        said = ReplayFit(bootstraps=20).fit(readings(seed=seed, steps=5)).predict(**where, interval=0.9)
        held += [band.low <= value <= band.high for band, value in zip(said, true, strict=True)]
        assert all(band.reading_low < band.low < band.high < band.reading_high for band in said)
    # 10 draws with p = 0.9: fewer than 6 are seen once in 600 times.
    assert sum(held) >= 6


def test_one_size_of_pool_leaves_the_pools_term_out() -> None:
    runs = readings()
    fit = ReplayFit(bootstraps=0).fit(runs.where((runs.tokens == 8e3) | (runs.lambda_ == 0)))
    assert fit.form_ == "no_tokens"
    assert set(fit.params_) == {"lambda_0", "gamma", "kappa"}


def test_runs_that_cannot_tell() -> None:
    runs = readings()

    def of(mask: Floats) -> None:
        ReplayFit(bootstraps=0).fit(runs.where(mask))

    with pytest.raises(ConfigError, match="no run is without replay"):
        of(runs.lambda_ > 0)
    with pytest.raises(ConfigError, match="two λ above 0, and the runs have λ = 0, 1"):
        of(np.isin(runs.lambda_, (0, 1)))
    with pytest.raises(ConfigError, match="readings cannot determine"):
        of((runs.N > 95) & (runs.lambda_ < 2) & (runs.tokens < 2e3))
    with pytest.raises(ConfigError, match="without replay, and the runs have 1 values of L_ft and 1 of L_f"):
        of((runs.lambda_ > 0) | (runs.N > 95))
    with pytest.raises(ConfigError, match="10 values of L_ft and 1 of L_f"):
        ReplayFit(bootstraps=0).fit(dataclasses.replace(runs, L_f=np.where(runs.lambda_ == 0, 1.3, runs.L_f)))
    with pytest.raises(ConfigError, match="no form"):
        ReplayFit(form="magic").fit(runs)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="all runs have P = 1,000,000"):
        ReplayFit(bootstraps=0).fit(runs).predict(P=2e6, N=10, lambda_=1)
