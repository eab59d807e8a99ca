"""What TRL cannot train is refused before a pool is written, and the trial leaves no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from trl import SFTTrainer

from keeptune.errors import ConfigError
from keeptune.models.loading import load_model
from keeptune.runs.trial import TriedSFTTrainer
from tests.families.catalog import FAMILIES
from tests.families.harness import make_base
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.training import config, largest_gap, task_rows, trained


def make(kind: type[SFTTrainer], model: Any, folder: Path, **settings: Any) -> SFTTrainer:
    args = config(folder, max_steps=2, **settings)
    return kind(model=model, args=args, train_dataset=task_rows(), processing_class=make_tokenizer())


def test_a_tried_trainer_trains_as_its_parent(tmp_path: Path) -> None:
    tried = make(TriedSFTTrainer, make_model(), tmp_path / "tried")
    assert tried.model.training is make(SFTTrainer, make_model(), tmp_path / "same").model.training
    parent = make(SFTTrainer, make_model(), tmp_path / "parent")
    assert largest_gap(trained(tried), trained(parent)) == 0.0
    assert tried.state.log_history[0]["num_tokens"] == parent.state.log_history[0]["num_tokens"]


@pytest.mark.parametrize(
    ("name", "word", "fix"),
    [
        ("llama4_text", "last_hidden_state", "KeepTrainer"),
        ("granitemoehybrid", "num_experts", "router_aux_loss_coef = 0"),
    ],
)
def test_what_trl_cannot_train_is_refused_with_trls_reason(name: str, word: str, fix: str, tmp_path: Path) -> None:
    base = make_base(FAMILIES[name], tmp_path / "base")
    with pytest.raises(ConfigError, match=word) as caught:
        make(TriedSFTTrainer, load_model(str(base)), tmp_path / "tried")
    assert fix in caught.value.fix
    with pytest.raises(AttributeError, match=word):
        make(SFTTrainer, load_model(str(base)), tmp_path / "parent").train()
    if name == "granitemoehybrid":
        make(TriedSFTTrainer, load_model(str(base)), tmp_path / "unbalanced", router_aux_loss_coef=0.0)


@pytest.mark.parametrize(("name", "wrong"), [("modernbert-decoder", True), ("gemma2, low caps", False)])
def test_a_loss_of_trl_that_is_not_the_models_own_is_told(
    name: str, wrong: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    make(TriedSFTTrainer, load_model(str(make_base(FAMILIES[name], tmp_path / "base"))), tmp_path / "tried")
    assert ("its own predictions give" in capsys.readouterr().err) is wrong
