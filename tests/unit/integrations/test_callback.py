"""Readings in a trainer that takes callbacks only: those of keeptune's own trainer, and a training left as it was."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import DataCollatorForLanguageModeling, Trainer, TrainingArguments

from keeptune import KeepConfig, KeepTrainer
from keeptune.errors import ConfigError
from keeptune.integrations.callback import DriftReadings
from keeptune.train.readings import FILE, read_rows
from tests.helpers.models import make_model, make_tokenizer

KEEP = KeepConfig(lambda_=0.0, drift_every=2, drift_rows=4, replay_length=16)


def make(out: Path, kind: type[Any] = Trainer, *, lora: bool = False, steps: int = 4, **more: Any) -> Any:
    """A trainer with dropout, so that a random number drawn too many would show."""
    model: Any = make_model()
    model.config.attention_dropout = 0.1
    if lora:
        torch.manual_seed(0)
        model = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    tokenizer = make_tokenizer()
    rows = Dataset.from_list([{"input_ids": [3 + (7 * row + place) % 250 for place in range(16)]} for row in range(16)])
    args = TrainingArguments(
        output_dir=str(out), max_steps=steps, learning_rate=1e-2, logging_steps=1, use_cpu=True, save_strategy="no"
    )
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    return kind(model=model, args=args, train_dataset=rows, data_collator=collator, processing_class=tokenizer, **more)


def losses(trainer: Any) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("lora", [False, True])
def test_readings_are_those_of_keeptunes_trainer_and_training_is_left_as_it_was(tmp_path: Path, lora: bool) -> None:
    plain = losses(make(tmp_path / "plain", lora=lora))
    read = losses(make(tmp_path / "read", lora=lora, callbacks=[DriftReadings(KEEP)]))
    own = losses(make(tmp_path / "own", KeepTrainer, lora=lora, keep=KEEP))
    assert read == plain == own
    ours, theirs = read_rows(tmp_path / "own" / FILE), read_rows(tmp_path / "read" / FILE)
    assert [row["step"] for row in theirs] == [0, 1, 2, 4]
    assert [(row["KL"], row["L_f"]) for row in theirs] == [(row["KL"], row["L_f"]) for row in ours]
    assert theirs[0]["KL"] < 1e-6 < theirs[-1]["KL"]


def test_a_replay_term_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot add the replay term") as caught:
        DriftReadings(KeepConfig(lambda_=1.0))
    assert "What to do: " in caught.value.__notes__[0]


@pytest.mark.parametrize(
    ("changes", "step", "words"),
    [
        ({"fsdp": "full_shard"}, 0, "FSDP or DeepSpeed shards it"),
        ({"deepspeed": "zero3.json"}, 0, "FSDP or DeepSpeed shards it"),
        ({}, 3, "resumes full fine-tuning at step 3"),
    ],
)
def test_a_model_from_which_no_base_is_read_is_refused(changes: dict[str, str], step: int, words: str) -> None:
    args = SimpleNamespace(**{"fsdp": "", "deepspeed": None, **changes})
    with pytest.raises(ConfigError, match=words):
        DriftReadings(KEEP).on_train_begin(args, SimpleNamespace(global_step=step), None, model=make_model())


def test_an_adapter_that_moves_the_base_is_refused() -> None:
    model = get_peft_model(make_model(), LoraConfig(target_modules="all-linear", init_lora_weights="pissa"))
    args = SimpleNamespace(fsdp="", deepspeed=None)
    with pytest.raises(ConfigError, match="drift needs the base"):
        DriftReadings(KEEP).on_train_begin(args, SimpleNamespace(global_step=0), None, model=model)
