"""The numbers of a report in each experiment tracker that is installed, read back by the tracker's own means."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest

from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.report.trackers import check_trackers, numbers_of, track_report
from tests.helpers.audit_report import full_report

WORKING = """
class Run:
    def __init__(self, name): self.name = name
    def log(self, numbers): open('sent', 'a').write(f'{self.name} {len(numbers)}\\n')
    def finish(self): pass
def init(**given): return Run(given['name'])
"""


def forget_modules(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Packages of these names are imported anew, and after the test as they were."""
    for name in names:
        monkeypatch.setitem(sys.modules, name, sys)
        del sys.modules[name]


def test_every_judged_finding_is_a_number_with_its_interval() -> None:
    numbers = numbers_of(full_report())
    judged = [one for one in full_report().findings if one.verdict is not None or one.headline]
    assert {numbers[name] for name in numbers if not name.endswith(("_low", "_high"))} == {one.value for one in judged}
    assert {"drift/self/kl", "drift/self/kl_low", "drift/self/kl_high"} <= set(numbers)


def test_tensorboard_holds_the_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    events_of = import_module("tensorboard.backend.event_processing.event_accumulator").EventAccumulator

    track_report(full_report(), ["tensorboard"], tmp_path)
    events = events_of(str(tmp_path / "tensorboard"))
    events.Reload()
    read = {name: events.Scalars(name)[0].value for name in events.Tags()["scalars"]}
    assert read == pytest.approx(numbers_of(full_report()), rel=1e-6)


def test_wandb_holds_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    held: dict[str, float] = {}
    finish = wandb.Run.finish
    monkeypatch.setattr(wandb.Run, "finish", lambda run: (held.update(run.summary), finish(run)))
    training = wandb.init(project="training")
    track_report(full_report(), ["wandb"], tmp_path / "out")
    assert wandb.run is training
    training.log({"loss": 1.0})
    training.finish()
    assert {name: held[name] for name in numbers_of(full_report())} == numbers_of(full_report())
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


FAILURES = {
    "no import": "raise ImportError('no numpy')",
    "no login": "def init(**given): raise RuntimeError('no API key')",
    "no network": """
class Run:
    def log(self, numbers): raise OSError('no route to host')
    def finish(self): open('finished', 'w').close()
def init(**given): return Run()
""",
    "no end": """
class Run:
    def log(self, numbers): pass
    def finish(self): raise TimeoutError
def init(**given): return Run()
""",
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_tracker_that_fails_is_said_and_the_next_one_is_asked(
    failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "trackio.py").write_text(FAILURES[failure])
    (tmp_path / "wandb.py").write_text(WORKING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    forget_modules(monkeypatch, "trackio", "wandb")
    monkeypatch.setattr(logger, "propagate", True)
    track_report(full_report(), ["trackio", "wandb", "wandb"], tmp_path / "out")
    (said,) = {record.getMessage() for record in caplog.records if record.levelname == "ERROR"}
    assert said.startswith("--report-to trackio: the numbers were not sent: ")
    assert (tmp_path / "sent").read_text() == f"out {len(numbers_of(full_report()))}\n", "once, and after the failure"
    assert (tmp_path / "finished").exists() == (failure == "no network")


def test_the_folder_of_earlier_runs_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    forget_modules(monkeypatch, "wandb")
    (tmp_path / "wandb" / "offline-run-1").mkdir(parents=True)
    with pytest.raises(ConfigError, match="the package wandb is not installed"):
        check_trackers(["wandb"])


def test_trackio_holds_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    pytest.importorskip("trackio")
    storage = import_module("trackio.sqlite_storage").SQLiteStorage

    track_report(full_report(), ["trackio"], tmp_path / "out")
    (run,) = storage.get_runs("keeptune")
    (row,) = storage.get_logs("keeptune", run)
    assert {name: row[name] for name in numbers_of(full_report())} == pytest.approx(numbers_of(full_report()))
