"""What the meter in the loop tells of its own floor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from keeptune import KeepSFTTrainer
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.training import config, keep, task_rows


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_a_base_that_differs_from_its_own_predictions_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pool: object, noise: float
) -> None:
    trainer = KeepSFTTrainer(
        model=make_model(),
        args=config(tmp_path / "run", max_steps=1),
        keep=keep(pool),
        train_dataset=task_rows(),
        processing_class=make_tokenizer(),
    )
    hidden_BTD = trainer.context.drift_rows.outputs["hidden"]
    trainer.context.drift_rows.outputs["hidden"] = hidden_BTD + noise * torch.randn_like(hidden_BTD)
    trainer.train()
    assert ("KL to the base's stored predictions is" in capsys.readouterr().err) == (noise > 0)
