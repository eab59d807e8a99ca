"""`keeptune plan` from end to end on the tiny model."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keeptune import cli
from keeptune.errors import ConfigError, OutputExists, SourceError
from keeptune.plan import ladder, pilot
from keeptune.plan.run import plan
from keeptune.plan.settings import PlanSettings
from tests.helpers.plans import plan_settings


@pytest.fixture
def settings(tmp_path: Path, model_folder: Path) -> PlanSettings:
    return plan_settings(tmp_path, model_folder)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["keeptune", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


def flags(settings: PlanSettings, **changed: object) -> list[object]:
    values = {**vars(settings), **changed}
    named = ("budget", "out", "minutes", "max_rank", "learning_rate", "batch_size", "max_length")
    words = [word for name in named for word in (f"--{name.replace('_', '-')}", values[name])]
    return ["plan", values["model"], values["data"], *words]


def test_a_whole_plan_stopped_resumed_asked_again_and_its_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: PlanSettings, tmp_path: Path
) -> None:
    monkeypatch.setattr(ladder, "REPEATS", 2)
    tune, calls = pilot.tune_or_resume, []

    def stopped_in_the_third_run(*given: Any, **named: Any) -> Path:
        calls.append(named["label"])
        if len(calls) == 4:
            # What a kill leaves that comes before the run file.
            folder = Path(given[0].out)
            folder.mkdir(parents=True)
            (folder / ".run.json.x.tmp").touch()
            raise KeyboardInterrupt
        return tune(*given, **named)

    monkeypatch.setattr(pilot, "tune_or_resume", stopped_in_the_third_run)
    assert run(monkeypatch, *flags(settings)) == 130
    assert calls == ["Probe", "Pilot run 1", "Pilot run 2", "Pilot run 3"]
    assert not (settings.folder / "plan.json").exists()

    assert run(monkeypatch, *flags(settings)) == 0
    assert calls[4] == "Pilot run 3"
    said = capsys.readouterr().out
    found = json.loads((settings.folder / "plan.json").read_text())
    chosen, runs = found["plan"], found["pilot"]["runs"]
    assert {one["rank"] for one in runs} == {4, 1, 16}
    assert all(one["readings"][-1]["N"] == one["steps"] for one in runs)
    assert found["command"] in said
    assert f"{chosen['task_loss'][0]:.3f} [" in said
    for value, low, high in (chosen["task_loss"], chosen["KL"]):
        assert low <= value <= high
    # Minutes were plenty: the longest run was made again and again, and the plan says so.
    assert found["pilot"]["stop"] == "measured"
    assert chosen["runs_of_that_length"] == 2
    assert chosen["steps"] <= found["pilot"]["limit"] == 3 * found["pilot"]["pass_steps"]
    assert "ended early" in said
    assert (settings.folder / "pilot.svg").stat().st_size > 5000

    made = len(calls)
    assert plan(settings)["plan"] == chosen
    assert len(calls) == made
    with pytest.raises(OutputExists, match="other settings"):
        plan(replace(settings, seed=1))

    for file, text in (
        ("pace.json", '{"pace": {'),
        ("pace.json", '{"pace": 3}'),
        ("design.json", "{}"),
        ("pilot.json", ""),
    ):
        whole = (settings.folder / file).read_text()
        (settings.folder / file).write_text(text)
        assert run(monkeypatch, *flags(settings)) == 2
        error = capsys.readouterr().err
        assert f"{file} is damaged" in error
        assert "→ delete" in error
        (settings.folder / file).write_text(whole)
    readings = next(settings.folder.glob("cells/*/runs.jsonl"))
    whole = readings.read_text()
    readings.write_text(whole.replace('"L_ft": 5', '"L_ft": 4', 1))
    assert readings.read_text() != whole
    with pytest.raises(SourceError, match=r"runs\.jsonl is damaged"):
        plan(settings)
    readings.write_text(whole)
    for cell in settings.folder.glob("cells/*/cell.json"):
        cell.write_text("{}")
    with pytest.raises(SourceError, match=r"cell\.json is damaged"):
        plan(settings)
    assert len(calls) == made

    # Few steps tell that the command runs; what it comes to is another matter.
    words = shlex.split(found["command"])
    words[words.index("--steps") + 1] = "3"
    assert run(monkeypatch, *words[1:]) == 0
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert (kept["max_length"], kept["batch_size"], kept["lora"]) == (32, 2, chosen["rank"])
    assert kept["budget"] == settings.budget


def test_bad_input_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: PlanSettings, tmp_path: Path
) -> None:
    for bad in ({"budget": 0}, {"budget": -0.1}, {"minutes": 0}, {"model": tmp_path / "no"}, {"data": tmp_path / "no"}):
        assert run(monkeypatch, *flags(settings, **bad)) == 2
        assert "→" in capsys.readouterr().err
        assert not settings.folder.exists()
    settings.folder.mkdir()
    (settings.folder / "thesis.tex").write_text("years of work")
    assert run(monkeypatch, *flags(settings)) == 2
    assert "holds no plan" in capsys.readouterr().err


def test_too_few_minutes_are_refused(settings: PlanSettings) -> None:
    with pytest.raises(ConfigError, match="too few for two pilot runs") as refused:
        plan(replace(settings, minutes=0.001))
    assert "--minutes" in refused.value.fix
    with pytest.raises(SourceError):
        plan(replace(settings, data="nosuch", out=settings.out + "-2"))
