"""Drift read on a text of the user: which rows are read, and that they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset

from keeptune import KeepConfig, KeepSFTTrainer
from keeptune.errors import ConfigError
from keeptune.train.drift import drift_text_rows
from keeptune.train.readings import read_rows
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.training import config


@pytest.fixture
def texts(tmp_path: Path) -> str:
    for number in range(9):
        (tmp_path / f"{number}.txt").write_text(f"{number}: " + "what the model knew before. " * (number + 1))
    return str(tmp_path / "*.txt")


def test_rows_are_the_openings_of_documents_that_are_long_enough(texts: str) -> None:
    rows_BT1 = drift_text_rows(texts, make_tokenizer(), KeepConfig(drift_rows=3, replay_length=60)).tokens_BW
    assert rows_BT1.shape == (3, 61)
    tokenizer = make_tokenizer()
    assert [tokenizer.decode(row[1:4]) for row in rows_BT1.tolist()] == ["2: ", "4: ", "6: "]
    assert set(rows_BT1[:, 0].tolist()) == {tokenizer.convert_tokens_to_ids("<|endoftext|>")}
    assert len(drift_text_rows(texts, tokenizer, KeepConfig(drift_rows=99, replay_length=60)).tokens_BW) == 7


def test_documents_shorter_than_a_row_are_refused(texts: str) -> None:
    with pytest.raises(ConfigError, match=r"no document of .* has 999 tokens"):
        drift_text_rows(texts, make_tokenizer(), KeepConfig(replay_length=999))


@pytest.mark.parametrize("lambda_", [0.0, 1.0])
def test_readings_are_of_the_text(tmp_path: Path, texts: str, lambda_: float) -> None:
    keep = KeepConfig(drift_text=texts, drift_rows=3, replay_length=60, replay_tokens=240, lambda_=lambda_)
    rows = [list(range(3 + shift, 27 + shift)) for shift in range(16)]
    trainer = KeepSFTTrainer(
        model=make_model(),
        args=config(tmp_path / "run", max_steps=2),
        keep=keep,
        train_dataset=Dataset.from_dict({"input_ids": rows, "labels": rows}),
        processing_class=make_tokenizer(),
    )
    trainer.train()
    first, *_, last = read_rows(tmp_path / "run" / "runs.jsonl")
    assert first["KL"] == pytest.approx(0, abs=1e-6)
    tokens_BW = drift_text_rows(texts, make_tokenizer(), keep).tokens_BW
    with torch.no_grad():
        base_BTV, tuned_BTV = (
            model(input_ids=tokens_BW[:, :-1]).logits.log_softmax(-1) for model in (make_model(), trainer.model.eval())
        )
    assert last["KL"] == pytest.approx(float((base_BTV.exp() * (base_BTV - tuned_BTV)).sum(-1).mean()), rel=1e-3)
    favourite_BT1 = base_BTV.argmax(-1, keepdim=True)
    assert last["L_f"] == pytest.approx(-float(tuned_BTV.gather(-1, favourite_BT1).mean()), rel=1e-4)
    assert last["L_f_on"] == texts
