"""Readings reach `report_to` under names of their own, and every one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from keeptune import KeepSFTTrainer
from keeptune.train.readings import read_rows
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.training import config, keep, task_rows


@pytest.mark.parametrize("labels", [True, False])
def test_every_reading_is_logged_as_an_evaluation(tmp_path: Path, pool: object, labels: bool) -> None:
    trainer = KeepSFTTrainer(
        model=make_model(),
        args=config(tmp_path / "run", max_steps=3),
        keep=keep(pool),
        train_dataset=task_rows(),
        eval_dataset=task_rows() if labels else None,
        processing_class=make_tokenizer(),
    )
    trainer.train()
    rows = read_rows(tmp_path / "run" / "runs.jsonl")
    logged = [entry for entry in trainer.state.log_history if "eval_drift_kl" in entry]
    assert [entry["step"] for entry in logged] == [row["step"] for row in rows] == [0, 1, 2, 3]
    assert [entry["eval_drift_kl"] for entry in logged] == [row["KL"] for row in rows]
    assert [entry["eval_drift_l_f_rise"] for entry in logged] == [row["L_f"] - row["L_f_base"] for row in rows]
    held_out = [entry.get("eval_task_loss") for entry in logged]
    assert held_out == ([row["L_ft"] for row in rows] if labels else [None] * 4)
