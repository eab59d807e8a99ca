"""The forecast in the loop: what rows say, the stop by a bound, and a tiny run of both from the command line."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from keeptune import cli
from keeptune.errors import ConfigError
from keeptune.laws.joint.fit import JointFit
from keeptune.laws.joint.record import fit_laws, write_laws
from keeptune.train.bounds import parse_bounds
from keeptune.train.callbacks.checkpoint import last_good_checkpoint
from keeptune.train.callbacks.forecast import describe, forecast_row, law_of, rates
from keeptune.train.config import KeepConfig
from keeptune.train.readings import read_rows
from tests.helpers.laws import OPENORCA, readings

END = 100
STEPS = (1, 2, 4, 8, 16, 25, 30, 40)


def rows(limit: int, **constant: Any) -> list[dict[str, Any]]:
    found = []
    for step in (0, *STEPS):
        rise = 0.2 * (1 - (1 + step / 8) ** -0.5)
        row = {"step": step, "L_ft": 2.5 - 2 * rise, "L_f": 1.3 + rise, "L_f_base": 1.3, "KL": 0.8 * rise, **constant}
        found.append(row)
    return [row for row in found if row["step"] <= limit]


def told(limit: int, bounds: list[str]) -> dict[str, Any]:
    """The forecast of the last of these rows, each of which has its own."""
    seen = rows(limit)
    for place, row in enumerate(seen):
        row["forecast"] = forecast_row(seen[: place + 1], END, [1.0] * END, parse_bounds(bounds))
    said = seen[-1]["forecast"]
    assert said is not None
    return said


def test_a_row_says_where_the_run_will_end_and_from_when_on() -> None:
    assert forecast_row(rows(0), END, [1.0] * END) is None
    assert told(16, [])["kl"] == "a forecast needs a quarter of the run, and step 16 of 100 is 16.0%"
    few = forecast_row([rows(0)[0], *rows(30)[-2:]], END, [1.0] * END)
    assert few is not None
    assert "needs 3 readings" in few["kl"]
    said = told(30, [])
    assert said["share"] == 0.3
    rise = 0.2 * (1 - (1 + END / 8) ** -0.5)
    for name, truth in (("kl", 0.8 * rise), ("l_f_rise", rise), ("l_ft", 2.5 - 2 * rise)):
        assert said[name]["low"] <= truth <= said[name]["high"]
    assert "stop" not in said
    assert describe(said).startswith(f"→ end: loss {said['l_ft']['value']:.3g} [")
    assert describe(told(16, [])) == describe(None) == ""
    last = {**rows(30)[-1], "step": END}
    assert forecast_row([*rows(30), last], END, [1.0] * END) is None


def test_a_run_without_task_loss_has_a_forecast_of_the_others() -> None:
    said = forecast_row(rows(30, L_ft=None), END, [1.0] * END)
    assert said is not None
    assert "the run has 0" in said["l_ft"]
    assert said["kl"]["low"] < said["kl"]["high"]
    assert describe(said).startswith("→ end: L_f +")


def test_a_stop_takes_two_readings_surely_beyond_the_same_bound() -> None:
    low = told(25, [])["kl"]["low"]
    assert told(25, [f"kl={low / 2}"])["beyond"] == [f"kl ≤ {low / 2:g}"]
    assert told(25, [f"kl={low / 2}"])["stop"] is None
    assert "excludes the bound" in told(30, [f"kl={low / 2}", "l_ft=9"])["stop"]
    value = told(30, [])["kl"]["value"]
    assert told(30, [f"kl={value * 0.99}"])["stop"] is None
    assert told(40, ["l_f_rise=5"])["beyond"] == []


def test_schedules_whose_future_is_known() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    half = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    assert rates(half, 3) == [1.0, 0.5, 0.25]
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    said = forecast_row(rows(30), END, rates(plateau, END))
    assert said is not None
    assert said["kl"] == "the learning rates to come are not known (ReduceLROnPlateau)"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["drift=1"], "names no measure that is forecast"),
        (["kl"], "names no measure"),
        (["kl=much"], "'much' is no number"),
        (["kl=nan"], "is no number"),
        (["kl=inf"], "is no number"),
        (["kl=-0.1"], "below 0"),
        (["kl=0.1", "kl=0.2"], "bounded twice"),
    ],
)
def test_bounds_that_cannot_be_meant(given: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        KeepConfig(stop_if_forecast=tuple(given))


def test_a_bound_needs_readings() -> None:
    assert str(parse_bounds(["l_f_rise=-0.01"])[0]) == "l_f_rise ≤ -0.01"
    with pytest.raises(ConfigError, match="needs readings"):
        KeepConfig(stop_if_forecast=("kl=0.1",), drift_every=0)


def test_readings_are_dense_early_and_one_is_at_a_quarter() -> None:
    keep = KeepConfig(drift_every=20)
    assert [step for step in range(1, 101) if keep.reads_after(step, 300)] == [1, 2, 4, 8, 16, 20, 40, 60, 75, 80, 100]
    assert not any(KeepConfig(drift_every=0).reads_after(step, 100) for step in range(1, 100))


def tune(monkeypatch: pytest.MonkeyPatch, base: Path, out: Path, *more: object) -> int:
    small = ["--steps", 40, "--batch-size", 2, "--max-length", 24, "--replay-length", 8, "--replay-tokens", 400]
    small += ["--drift-rows", 4, "--held-out-rows", 4, "--drift-every", 5, "--checkpoint-every", 0, "--lambda", 0]
    arguments = ["keeptune", "tune", base, "*.txt", "--out", out, "--learning-rate", 3e-3, *small, *more]
    monkeypatch.setattr("sys.argv", [str(argument) for argument in arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


def test_a_run_is_stopped_by_its_forecast_and_goes_on_without_the_bound(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path, tmp_path: Path
) -> None:
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text(f"Text {number} is about the number {number}. " * 9)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert tune(monkeypatch, model_folder, whole) == 0
    capsys.readouterr()
    assert tune(monkeypatch, model_folder, parts, "--stop-if-forecast", "kl=0.001") == 1
    said = capsys.readouterr().err
    assert "the 90 % interval excludes the bound" in said
    assert "without --stop-if-forecast" in said
    stopped = read_rows(parts / "runs.jsonl")
    before, last = stopped[-2:]
    assert 4 < last["step"] < 40
    assert last["forecast"]["stop"]
    assert before["forecast"]["beyond"] == last["forecast"]["beyond"] == ["kl ≤ 0.001"]
    checkpoint = last_good_checkpoint(parts)
    assert checkpoint is not None
    assert checkpoint.name == f"checkpoint-{last['step']}"
    assert not (parts / "model").exists()
    assert tune(monkeypatch, model_folder, parts, "--resume", "--lambda", 1) == 2
    assert tune(monkeypatch, model_folder, parts, "--resume") == 0
    pairs = list(zip(read_rows(whole / "runs.jsonl"), read_rows(parts / "runs.jsonl"), strict=True))
    for one, other in pairs:
        assert [one[key] for key in ("step", "KL", "L_ft")] == [other[key] for key in ("step", "KL", "L_ft")]
    assert pairs[-2][0]["forecast"] == pairs[-2][1]["forecast"]
    ends = json.loads(json.dumps(pairs[-2][0]["forecast"]))["kl"]
    assert ends["low"] <= pairs[-1][0]["KL"] <= ends["high"]
    assert math.isfinite(ends["value"])


def test_a_law_of_earlier_runs_says_the_end_from_the_first_reading_on(tmp_path: Path) -> None:
    path = tmp_path / "laws.json"
    write_laws(path, fit_laws(replace(readings(noise=0.01), base="this base"), bootstraps=20))
    with pytest.raises(ConfigError, match="the law of another base"):
        law_of(str(path), "that base")
    law = law_of(str(path), "this base")
    size = float(readings().P[0])
    truth = OPENORCA.predict(P=size, N=END)
    own = rows(4, P=size, L_f_base=0.5)
    said = forecast_row(own, END, [1.0] * END, (), law)
    assert said is not None
    assert said["l_ft"]["low"] <= truth.L_ft <= said["l_ft"]["high"]
    assert said["l_f_rise"]["value"] == pytest.approx(float(truth.L_f) - 0.5, abs=0.02)
    assert "needs a quarter" in said["kl"]
    astray = forecast_row(rows(30, P=size * 1e3, L_f=9.0), END, [1.0] * END, (), replace_first(law, 10))
    assert astray is not None
    assert "does not follow the law" in astray["l_f_rise"]


def replace_first(law: JointFit, first: float) -> JointFit:
    law.first_N_ = first
    return law


def test_laws_without_a_joint_law_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "laws.json"
    write_laws(path, fit_laws(readings(ranks=(8, 16), seeds=1), bootstraps=5))
    with pytest.raises(ConfigError, match="no joint law"):
        law_of(str(path), "this base")
