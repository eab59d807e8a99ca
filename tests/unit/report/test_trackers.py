"""The numbers of a report in each experiment tracker that is installed, read back by the tracker's own means."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from keeptune.report.trackers import numbers_of, track_report
from tests.helpers.audit_report import full_report


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
    finish = wandb.finish
    monkeypatch.setattr(wandb, "finish", lambda: (held.update(wandb.run.summary), finish()))
    track_report(full_report(), ["wandb"], tmp_path / "out")
    assert {name: held[name] for name in numbers_of(full_report())} == numbers_of(full_report())
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_trackio_holds_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    pytest.importorskip("trackio")
    storage = import_module("trackio.sqlite_storage").SQLiteStorage

    track_report(full_report(), ["trackio"], tmp_path / "out")
    (run,) = storage.get_runs("keeptune")
    (row,) = storage.get_logs("keeptune", run)
    assert {name: row[name] for name in numbers_of(full_report())} == pytest.approx(numbers_of(full_report()))
