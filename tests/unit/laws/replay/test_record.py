"""laws.json of the replay law: what is read predicts as what was written; files without it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.laws.describe import print_laws
from keeptune.laws.joint.record import fit_laws, predict_losses, write_laws
from keeptune.laws.replay.fit import ReplayFit
from keeptune.laws.replay.law import Hold
from keeptune.laws.replay.record import fit_replay_law, leave_cells_out, predict_with_replay, read_replay_law
from tests.helpers.laws import readings as joint_readings
from tests.helpers.replay_laws import LAW, readings


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
    with pytest.raises(ConfigError, match="contains the replay law") as caught:
        predict_losses(str(path), P=1e6, N=50, interval=0.9)
    assert "--lambda" in caught.value.fix


def test_files_without_a_replay_law(tmp_path: Path) -> None:
    path = tmp_path / "laws.json"
    with pytest.raises(SourceNotFound):
        read_replay_law(path)
    for text, why in (
        ('{"format": 2, "replay": {}}', "is damaged: it is not what .*data: Field required"),
        ('{"format": 2, "replay": 3, "left_out": "", "data": {}}', "is damaged: it is not what .*data.readings"),
        ("{}", "is not a laws"),
    ):
        path.write_text(text)
        with pytest.raises(SourceError, match=why):
            read_replay_law(path)
    write_laws(path, fit_laws(joint_readings(ranks=(8,)), bootstraps=0))
    with pytest.raises(ConfigError, match="did not differ"):
        predict_with_replay(str(path), P=1, N=1, lambda_=1, tokens=None, interval=0.9)
    with pytest.raises(ConfigError, match="does not include replay"):
        predict_with_replay("llama2-7b-chat/news", P=1, N=1, lambda_=1, tokens=None, interval=0.9)


def test_cells_left_out_tell_the_law_from_simpler_ones_where_pools_matter() -> None:
    found = leave_cells_out(readings(steps=4, weights=(0.2, 2.0)))
    assert len(found["cells"]) == 6
    assert found["mean"]["replay"]["L_f"] < 0.004
    for rival in ("no_tokens", "power", "constant", "none"):
        more, low, high = found["against"][rival]
        assert low <= more <= high
        # Six cells are few: only the average is sure to be better.
        assert more > 0
        assert found["mean"][rival]["L_f"] - found["mean"]["replay"]["L_f"] == pytest.approx(more)


def test_where_pools_do_not_matter_the_law_is_not_said_to_be_better() -> None:
    law = dataclasses.replace(LAW, hold=Hold(lambda_0=0.2, gamma=0.8, kappa=0.15, tokens_0=0.0, delta=1.0))
    found = leave_cells_out(readings(law=law, steps=4, weights=(0.2, 2.0)), ("replay", "no_tokens"))
    assert found["against"]["no_tokens"][0] == pytest.approx(0, abs=5e-4)


def test_two_cells_are_too_few() -> None:
    runs = readings()
    with pytest.raises(ConfigError, match="2 cells"):
        leave_cells_out(runs.where((runs.lambda_ == 0) | ((runs.lambda_ == 1) & (runs.tokens > 5e3))))
