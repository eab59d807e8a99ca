"""Readings reach `report_to` under names of their own, every one of them, and leave the trainer's log as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from keeptune import KeepSFTTrainer
from keeptune.train.readings import read_rows
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.training import config, keep, task_rows

NAMES = {"eval/drift_kl": "KL", "eval/task_loss": "L_ft"}


@pytest.mark.parametrize("labels", [True, False])
def test_every_reading_is_shown_as_an_evaluation(
    tmp_path: Path, pool: object, labels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    trainer = KeepSFTTrainer(
        model=make_model(),
        args=config(tmp_path / "run", max_steps=3, report_to="tensorboard"),
        keep=keep(pool),
        train_dataset=task_rows(),
        eval_dataset=task_rows() if labels else None,
        processing_class=make_tokenizer(),
    )
    trainer.train()
    rows = read_rows(tmp_path / "run" / "runs.jsonl")
    shown = events.EventAccumulator(str(tmp_path / "events")).Reload()
    for name, key in NAMES.items():
        found = [(event.step, event.value) for event in shown.Scalars(name)] if name in shown.Tags()["scalars"] else []
        expected = [(row["step"], pytest.approx(row[key], rel=1e-6)) for row in rows]
        assert found == (expected if labels or key == "KL" else [])
    rise = [event.value for event in shown.Scalars("eval/drift_l_f_rise")]
    assert rise == pytest.approx([row["L_f"] - row["L_f_base"] for row in rows], abs=1e-6)
    assert not any("eval_drift_kl" in entry for entry in trainer.state.log_history)


def test_without_a_tracker_nothing_is_given(tmp_path: Path, pool: object) -> None:
    trainer = KeepSFTTrainer(
        model=make_model(), args=config(tmp_path / "run"), keep=keep(pool), train_dataset=task_rows(),
        processing_class=make_tokenizer(),
    )  # fmt: skip
    assert not any(type(listener).__name__ == "ReportReadings" for listener in trainer.context.listeners)
