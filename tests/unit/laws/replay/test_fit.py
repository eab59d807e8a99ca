"""The replay law: its formula and limits, what fits recover, and how it fares against simpler laws on cells unseen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.laws.describe import print_laws
from keeptune.laws.forms import Floats
from keeptune.laws.joint.record import fit_laws, predict_losses, write_laws
from keeptune.laws.replay.fit import ReplayFit
from keeptune.laws.replay.heldout import leave_cells_out
from keeptune.laws.replay.law import Hold, ReplayLaw
from keeptune.laws.replay.record import fit_replay_law, predict_with_replay, read_replay_law
from tests.helpers.laws import OPENORCA
from tests.helpers.laws import readings as joint_readings
from tests.helpers.replay_laws import JOINT, LAW, readings

PLACE = {"P": 1e6, "N": np.array([20.0, 100.0])}


def test_the_law_written_out() -> None:
    q = 1 / (1 + (8000 / 3000) ** 0.7)
    N = PLACE["N"]
    slower = q + (1 - q) * (1 + 1 / 0.2) ** 0.15
    L_ft = 1.3 + (5 * slower / N) ** 0.6
    L_f = 1.2 + ((3.2 - 1.3 - (3 / N) ** 0.5) - 1.2) * (q + (1 - q) * (1 + 1 / 0.2) ** -0.8)
    said = LAW.predict(**PLACE, lambda_=1.0, tokens=8e3)
    np.testing.assert_allclose(said.L_ft, L_ft, rtol=1e-12)
    np.testing.assert_allclose(said.L_f, L_f, rtol=1e-12)


def test_its_limits_are_the_joint_law_the_effect_of_the_weight_alone_and_the_pools_floor() -> None:
    plain = JOINT.predict(**PLACE)
    for lambda_, tokens in ((0.0, 8e3), (0.0, np.inf), (3.0, 0.0)):
        np.testing.assert_allclose(LAW.predict(**PLACE, lambda_=lambda_, tokens=tokens), plain, rtol=1e-12)
    without = dataclasses.replace(LAW, hold=dataclasses.replace(LAW.hold, tokens_0=0.0))
    np.testing.assert_allclose(LAW.predict(**PLACE, lambda_=2.0), without.predict(**PLACE, lambda_=2.0, tokens=10.0))
    held = LAW.predict(**PLACE, lambda_=1e30, tokens=3000.0)
    np.testing.assert_allclose(held.L_f - 1.2, 0.5 * (plain.L_f - 1.2))
    for name, where in (
        ("lambda", {"lambda_": -1.0}),
        ("lambda", {"lambda_": np.inf}),
        ("replay_tokens", {"lambda_": 1.0, "tokens": np.nan}),
    ):
        with pytest.raises(ConfigError, match=f"no value at {name}"):
            LAW.predict(**PLACE, **where)


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


def test_cells_left_out_tell_the_law_from_simpler_ones_where_pools_matter() -> None:
    found = leave_cells_out(readings(steps=4, weights=(0.2, 2.0)))
    assert len(found["cells"]) == 6
    assert found["mean"]["replay"]["L_f"] < 0.004
    for rival in ("no_tokens", "power", "constant", "none"):
        more, low, high = found["against"][rival]
        assert low <= more <= high
        assert low > 0
        assert found["mean"][rival]["L_f"] - found["mean"]["replay"]["L_f"] == pytest.approx(more)


def test_where_pools_do_not_matter_the_law_is_not_said_to_be_better() -> None:
    law = dataclasses.replace(LAW, hold=Hold(lambda_0=0.2, gamma=0.8, kappa=0.15, tokens_0=0.0, delta=1.0))
    found = leave_cells_out(readings(law=law, steps=4, weights=(0.2, 2.0)), ("replay", "no_tokens"))
    assert found["against"]["no_tokens"][0] == pytest.approx(0, abs=5e-4)


def test_one_size_of_pool_leaves_the_pools_term_out() -> None:
    runs = readings()
    fit = ReplayFit(bootstraps=0).fit(runs.where((runs.tokens == 8e3) | (runs.lambda_ == 0)))
    assert fit.form_ == "no_tokens"
    assert set(fit.params_) == {"lambda_0", "gamma", "kappa"}


def test_runs_that_cannot_tell() -> None:
    runs = readings()

    def of(mask: Floats) -> None:
        ReplayFit(bootstraps=0).fit(runs.where(mask))

    with pytest.raises(ConfigError, match="no run without replay"):
        of(runs.lambda_ > 0)
    with pytest.raises(ConfigError, match="two λ above 0; here are λ = 0, 1"):
        of(np.isin(runs.lambda_, (0, 1)))
    with pytest.raises(ConfigError, match="readings cannot determine"):
        of((runs.N > 95) & (runs.lambda_ < 2) & (runs.tokens < 2e3))
    with pytest.raises(ConfigError, match="without replay; here are 1 values of L_ft and 1 of L_f"):
        of((runs.lambda_ > 0) | (runs.N > 95))
    with pytest.raises(ConfigError, match="10 values of L_ft and 1 of L_f"):
        ReplayFit(bootstraps=0).fit(dataclasses.replace(runs, L_f=np.where(runs.lambda_ == 0, 1.3, runs.L_f)))
    with pytest.raises(ConfigError, match="no form"):
        ReplayFit(form="magic").fit(runs)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="all runs are of P = 1,000,000"):
        ReplayFit(bootstraps=0).fit(runs).predict(P=2e6, N=10, lambda_=1)
    with pytest.raises(ConfigError, match="2 cells"):
        leave_cells_out(runs.where((runs.lambda_ == 0) | ((runs.lambda_ == 1) & (runs.tokens > 5e3))))


def test_what_is_read_predicts_as_what_was_fitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, path = readings(steps=6, weights=(0.2, 2.0)), tmp_path / "laws.json"
    laws = fit_replay_law(runs, bootstraps=8, seed=2)
    write_laws(path, laws)
    fitted = ReplayFit(bootstraps=8, seed=2).fit(runs).predict(P=1e6, N=50, lambda_=1, tokens=5e3, interval=0.9)
    said = predict_with_replay(str(path), P=1e6, N=50, lambda_=1, tokens=5e3, interval=0.9)
    np.testing.assert_allclose(said, fitted, rtol=1e-9)
    endless = predict_with_replay(str(path), P=1e6, N=50, lambda_=1, tokens=None, interval=0.9)
    assert endless.L_f.value < said.L_f.value
    print_laws(laws)
    shown = capsys.readouterr().out
    assert "42 readings of 7 runs with 1 different P" in shown
    assert f"no_tokens L_ft {laws['left_out']['mean']['no_tokens']['L_ft']:.4f}" in shown
    with pytest.raises(ConfigError, match="has the replay law") as caught:
        predict_losses(str(path), P=1e6, N=50, interval=0.9)
    assert "--lambda" in caught.value.fix


def test_files_without_a_replay_law(tmp_path: Path) -> None:
    path = tmp_path / "laws.json"
    with pytest.raises(SourceNotFound):
        read_replay_law(path)
    for text, why in (('{"format": 2, "replay": {}}', "is damaged: it is not what"), ("{}", "is not a laws")):
        path.write_text(text)
        with pytest.raises(SourceError, match=why):
            read_replay_law(path)
    write_laws(path, fit_laws(joint_readings(ranks=(8,)), bootstraps=0))
    with pytest.raises(ConfigError, match="did not differ"):
        predict_with_replay(str(path), P=1, N=1, lambda_=1, tokens=None, interval=0.9)
    with pytest.raises(ConfigError, match="knows no replay"):
        predict_with_replay("llama2-7b-chat/news", P=1, N=1, lambda_=1, tokens=None, interval=0.9)
