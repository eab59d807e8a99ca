"""laws.json: what is read predicts as what was written; why there is no joint law; damaged files."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.laws.describe import print_laws
from keeptune.laws.figures import drawing
from keeptune.laws.forms import LLAMA_2_7B_PARAMETERS_PER_RANK
from keeptune.laws.joint.document import Laws
from keeptune.laws.joint.fit import JointFit
from keeptune.laws.joint.record import (
    FORMAT,
    beyond,
    fit_laws,
    last_steps,
    leave_one_rank_out,
    predict_losses,
    predict_on_line,
    read_laws,
    write_laws,
)
from tests.helpers.laws import OPENORCA, readings


def test_what_is_read_predicts_as_what_was_fitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, path = readings(noise=0.005, seeds=1), tmp_path / "laws.json"
    laws = fit_laws(runs, bootstraps=10, seed=3)
    write_laws(path, laws)
    said = predict_losses(str(path), P=2e8, N=300, interval=0.8)
    for kept, fitted in zip(
        said, JointFit(bootstraps=10, seed=3).fit(runs).predict(P=2e8, N=300, interval=0.8), strict=True
    ):
        assert kept[:3] == fitted[:3]
        assert kept[3:] == pytest.approx(fitted[3:], abs=1e-4)
    assert said.L_f.reading_low < said.L_f.low < said.L_f.value < said.L_f.high < said.L_f.reading_high
    band = predict_on_line(str(path), L_ft=0.7, interval=0.8)
    assert band.value == pytest.approx(laws["line"]["params"]["s"] - 0.7 * laws["line"]["params"]["c"])
    assert band.low < band.value < band.high
    assert laws["data"]["P"] == runs.sizes
    assert beyond(str(path), P=runs.sizes[0], N=50) is None
    # A rank in the place of tuned parameters.
    for P, N in ((64, 100), (2e7, 261), (1e9, 100)):
        assert "P from 19,988,480 to 639,631,360 and N from 50 to 260" in str(beyond(str(path), P=P, N=N))
    assert [of["P"] for of in laws["held_out"]["one_rank"]] == runs.sizes
    print_laws(laws)
    shown = capsys.readouterr().out
    assert "132 readings of 6 runs with 6 different P" in shown
    assert f"{laws['held_out']['last_30_percent']['L_f']:.2%}" in shown
    assert "not determined by these runs" in shown.split("slope_P_ft")[1]
    for name in laws["joint"]["weak"]:
        assert f"{name} in [" not in shown


def test_two_ranks_give_the_line_and_say_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, path = readings(ranks=(8, 64)), tmp_path / "laws.json"
    laws = fit_laws(runs, bootstraps=5)
    write_laws(path, laws)
    assert "three P (ranks)" in laws["joint"]
    assert read_laws(path)[1] == laws["joint"]
    with pytest.raises(ConfigError, match="three P") as caught:
        predict_losses(str(path), P=1e7, N=10, interval=0.9)
    assert "--L-ft" in caught.value.fix
    print_laws(laws)
    assert "Only the line is fitted: the joint law needs three P" in capsys.readouterr().out
    assert drawing(runs)["joint"] == laws["joint"]


def test_three_ranks_give_the_joint_law_and_say_why_no_rank_can_be_left_out() -> None:
    laws = fit_laws(readings(ranks=(8, 32, 128)), bootstraps=5)
    assert "the runs have 2" in laws["held_out"]["one_rank"]
    assert laws["held_out"]["last_30_percent"]["readings"] == 9 * 7


def test_published_laws_predict_by_name() -> None:
    said = predict_losses("llama2-7b-chat/openorca", P=1e8, N=100, interval=0.9)
    assert (said.L_ft.value, said.L_f.value) == OPENORCA.predict(P=1e8, N=100)
    assert said.L_f.low is None
    assert predict_on_line("llama2-7b-chat/openorca", L_ft=0.7, interval=0.9).value == pytest.approx(0.83472)
    for loss in (float("nan"), -3.0):
        with pytest.raises(ConfigError, match="not defined at task loss"):
            predict_on_line("llama2-7b-chat/openorca", L_ft=loss, interval=0.9)
    assert beyond("llama2-7b-chat/openorca", P=1, N=1) is None


def test_files_that_are_no_laws(tmp_path: Path) -> None:
    path = tmp_path / "laws.json"
    with pytest.raises(SourceNotFound, match="no laws at"):
        read_laws(path)
    found = {"format": FORMAT, "joint": "x", "line": {}, "data": {}}
    for text, why in (
        ("oops", "damaged: it is not JSON"),
        ("[]", "is not a laws"),
        ("{}", "is not a laws"),
        (json.dumps({"format": 99}), "has format 99"),
        (json.dumps(found), "damaged: it is not what keeptune writes there"),
    ):
        path.write_text(text)
        with pytest.raises(SourceError, match=why) as caught:
            read_laws(path)
        assert "keeptune laws fit" in caught.value.fix
    with pytest.raises(SourceError, match="damaged: it is not what"):
        beyond(str(path), P=1, N=1)


@cache
def fitted() -> Laws:
    return fit_laws(readings(ranks=(8, 32, 128), seeds=1), bootstraps=2)


@pytest.mark.parametrize(
    ("part", "change", "field"),
    [
        ("line", None, "line"),
        ("line", {"params": {"c": "x", "s": 1.0}}, "line.params.c"),
        ("line", {"r2": [0.1, 0.2]}, "line.r2"),
        ("line", {"spread": {"c": [1.0]}}, "line.spread.c"),
        ("line", {"residuals": 3}, "line.residuals"),
        ("joint", 3, "joint"),
        ("joint", {"theta": ["a"]}, "joint.*theta"),
        ("joint", {"theta": [1.0]}, "theta holds 1 numbers, not 11"),
        ("joint", {"draws": [[1.0]]}, "not of 11 parameters"),
        ("joint", {"information": [[[1.0]]]}, "not of 11 parameters"),
        ("line", {"draws": [[1.0, 2.0], [1.0]]}, "inhomogeneous"),
        ("joint", {"center": [1.0]}, "joint.*center"),
        ("joint", {"weak": None}, "joint.*weak"),
        ("data", {"N": [1.0]}, "data.N"),
        ("data", {"P": {}}, "data.P"),
        ("data", {"base": 7}, "data.base"),
    ],
)
def test_a_damaged_laws_json_names_its_file_and_field(tmp_path: Path, part: str, change: Any, field: str) -> None:
    path = tmp_path / "laws.json"
    laws: dict[str, Any] = dict(fitted())
    laws[part] = {**laws[part], **change} if isinstance(change, dict) else change
    path.write_text(json.dumps(laws))
    with pytest.raises(SourceError, match=rf"laws\.json is damaged: .*{field}") as caught:
        read_laws(path)
    assert "keeptune laws fit" in caught.value.fix


def test_held_out_errors_are_nothing_for_a_law_and_show_the_rank_that_breaks_it() -> None:
    exact = readings(noise=0, seeds=1)
    assert all(miss["L_f"] < 1e-6 and miss["readings"] == 22 for miss in leave_one_rank_out(exact).values())
    last = last_steps(exact)
    assert (last["L_ft"] < 1e-6, last["L_f"] < 1e-6, last["readings"]) == (True, True, 6 * 7)
    odd = 64.0 * LLAMA_2_7B_PARAMETERS_PER_RANK
    moved = dataclasses.replace(exact, L_ft=np.where(np.equal(exact.P, odd), 1.1 * exact.L_ft, exact.L_ft))
    misses = leave_one_rank_out(moved)
    assert misses[odd]["L_ft"] == pytest.approx(1 - 1 / 1.1, abs=0.02)
    assert max(misses, key=lambda size: misses[size]["L_ft"]) == odd
    with pytest.raises(ConfigError, match="have 2 and 22"):
        leave_one_rank_out(readings(ranks=(8, 16, 32)))


def test_the_last_steps_are_the_last_of_each_run_in_whatever_order_they_are_given() -> None:
    exact = readings(noise=0, seeds=1)
    late = dataclasses.replace(exact, L_f=np.where(exact.N > 190, 2 * exact.L_f, exact.L_f))
    shuffled = np.random.default_rng(0).permutation(len(late))
    mixed = dataclasses.replace(
        late, **{name: getattr(late, name)[shuffled] for name in ("P", "N", "L_ft", "L_f", "run")}
    )
    for runs in (late, mixed):
        assert last_steps(runs)["L_f"] == pytest.approx(0.5, abs=1e-6)
