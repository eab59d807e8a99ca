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
from keeptune.plan import law, pilot
from keeptune.plan.run import plan
from keeptune.plan.settings import PlanSettings


@pytest.fixture
def settings(tmp_path: Path, model_folder: Path) -> PlanSettings:
    (tmp_path / "task").mkdir()
    for number in range(10):
        text = f"Text {number}: " + " ".join(f"{(number + 3) * word} and {word * word % 17};" for word in range(14))
        (tmp_path / "task" / f"{number}.txt").write_text(text)
    return PlanSettings(
        model=str(model_folder),
        data=str(tmp_path / "task"),
        budget=0.5,
        out=str(tmp_path / "plan"),
        minutes=600.0,  # one pass over the data bounds the runs, not the speed of the machine
        max_rank=16,
        learning_rate=1e-3,
        batch_size=2,
        max_length=32,
    )


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
    monkeypatch.setattr(law.PilotLaw.fit.__func__, "__kwdefaults__", {"bootstraps": 12})
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
    assert calls == ["Probe", "Pilot 1/5", "Pilot 2/5", "Pilot 3/5"]
    assert not (settings.folder / "plan.json").exists()

    assert run(monkeypatch, *flags(settings)) == 0
    assert calls[4:] == ["Pilot 3/5", "Pilot 4/5", "Pilot 5/5"]
    said = capsys.readouterr().out
    found = json.loads((settings.folder / "plan.json").read_text())
    chosen, runs = found["plan"], found["pilot"]["runs"]
    assert [(one["rank"], one["lambda"]) for one in runs] == [(4, 0), (4, 0.5), (4, 5), (1, 0), (16, 0)]
    assert all(one["readings"][-1]["N"] == found["pilot"]["design"]["steps"] for one in runs)
    assert found["command"] in said
    assert f"{chosen['task_loss'][0]:.3f} [" in said
    for value, low, high in (chosen["task_loss"], chosen["KL"], chosen["L_f_rise"]):
        assert low <= value <= high
    assert chosen["steps"] <= 10 * found["pilot"]["design"]["steps"]
    assert (settings.folder / "frontier.svg").stat().st_size > 5000

    again = plan(replace(settings, budget=5.0))
    assert len(calls) == 7
    assert again["plan"]["task_loss"][0] <= chosen["task_loss"][0] + 0.01
    with pytest.raises(ConfigError, match="no run within reach"):
        plan(replace(settings, budget=1e-7))
    with pytest.raises(OutputExists, match="other settings"):
        plan(replace(settings, seed=1))

    for file, text in (("pace.json", '{"pace": {'), ("pace.json", '{"pace": 3}'), ("pilot.json", "")):
        whole = (settings.folder / file).read_text()
        (settings.folder / file).write_text(text)
        assert run(monkeypatch, *flags(settings)) == 2
        error = capsys.readouterr().err
        assert f"{file} is damaged" in error
        assert "→ delete" in error
        (settings.folder / file).write_text(whole)
    for cell in settings.folder.glob("cells/rank4-lambda0-*/cell.json"):
        cell.write_text("{}")
    with pytest.raises(SourceError, match=r"cell\.json is damaged"):
        plan(settings)
    assert len(calls) == 7

    # Few steps tell that the command runs; what it comes to is another matter.
    words = shlex.split(found["command"])
    words[words.index("--steps") + 1] = "3"
    assert run(monkeypatch, *words[1:]) == 0
    kept = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert (kept["max_length"], kept["batch_size"], kept["lora"]) == (32, 2, chosen["rank"])
    assert kept["sft"]["lr_scheduler_type"] == "constant_with_warmup"


def test_one_run_gives_bounds_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: PlanSettings
) -> None:
    kinds = ({"rates": settings.rates, "weights": (), "ranks": settings.ranks[:1]},)
    monkeypatch.setattr("keeptune.plan.design._fullest_first", lambda settings: kinds)
    assert run(monkeypatch, *flags(settings)) == 0
    said = capsys.readouterr().out
    chosen = json.loads((settings.folder / "plan.json").read_text())["plan"]
    value, low, high = chosen["task_loss"]
    assert value is None
    assert low < high
    assert "KL" not in chosen
    assert f"between {low:.3f} and {high:.3f}" in said
    assert "not predicted" in said
    assert "--budget 0.5" in said


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
    with pytest.raises(ConfigError, match="too few for one pilot run") as refused:
        plan(replace(settings, minutes=0.001))
    assert "--minutes" in refused.value.fix
    with pytest.raises(SourceError):
        plan(replace(settings, data="nosuch", out=settings.out + "-2"))
