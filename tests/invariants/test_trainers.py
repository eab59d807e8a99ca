"""Every trainer keeps alike: λ = 0 is the parent, the replay term is one and the same, however a step is cut."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlavaProcessor,
    T5Config,
    T5ForConditionalGeneration,
    TrainerCallback,
)
from trl import RewardConfig, RewardTrainer

from keeptune import KeepConfig, KeepMixin
from keeptune.errors import ConfigError, Diverged
from keeptune.objective import forward_kl, next_token_ce
from keeptune.replay.pool import ReplayPool
from keeptune.replay.teachers import LiveCopy
from keeptune.train.readings import read_rows
from keeptune.train.replay_term import replay_rows
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.trainers import KINDS, SHARED, model_on_disk, preferences
from tests.helpers.training import keep, largest_gap, trained

LAMBDA = 2.0
PLAIN = KeepConfig(lambda_=0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_lambda_zero_is_the_parent_bit_for_bit(tmp_path: Path, kind: str) -> None:
    # One after the other: some trainers seed the global generator when they are made.
    parent = KINDS[kind].make(tmp_path / "parent", None)
    parent_weights = trained(parent)
    ours = KINDS[kind].make(tmp_path / "ours", PLAIN)
    our_weights = trained(ours)
    assert our_weights.keys() == parent_weights.keys()
    assert all(torch.equal(parent_weights[name], our_weights[name]) for name in parent_weights)
    losses = [[entry["loss"] for entry in t.state.log_history if "loss" in entry] for t in (parent, ours)]
    assert losses[0] == losses[1]
    assert largest_gap(our_weights, dict(make_model().state_dict())) > 0
    files = [sorted(p.name for p in (tmp_path / name).glob("*")) for name in ("parent", "ours")]
    assert files[0] == files[1], "no replay pool, no readings"


def first_rows(pool: ReplayPool, count: int) -> Any:
    return pool.batch(replay_rows(step=0, micro=0, micros=1, rank=0, world=1, rows=count, pool_rows=16, seed=42))


def dense_gradient(pool: ReplayPool, objective: str) -> dict[str, Tensor]:
    """∇ of the mean replay term of the first step, from the model's own logits."""
    batch, model = first_rows(pool, 4), make_model()
    logits_NV = model(input_ids=batch.inputs_BP).logits.flatten(0, 1)
    if objective == "ntp":
        total = next_token_ce(logits_NV, batch.targets_BT.flatten())
    else:
        with torch.no_grad():
            teacher_NV = make_model(seed=5)(input_ids=batch.inputs_BP).logits.flatten(0, 1)
        total = forward_kl(logits_NV, teacher_NV)
    (total / batch.targets_BT.numel()).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("objective", ["ntp", "kl"])
@pytest.mark.parametrize("micros", [1, 2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_the_terms_gradient_is_the_dense_one_in_every_trainer(
    tmp_path: Path, pool: ReplayPool, kind: str, micros: int, objective: str
) -> None:
    """One step of plain SGD: what λ changes of the weights is −rate · λ · ∇R, for every trainer and cut of the step.

    KL(base‖model) has no gradient at the base itself, so the teacher is an object that predicts otherwise.
    """
    rate = 0.05
    how = {"optim": "sgd", "learning_rate": rate, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    how |= {"gradient_accumulation_steps": micros, "max_steps": 1}
    teacher: Any = "auto" if objective == "ntp" else LiveCopy(make_model(seed=5), torch.float32)
    settings = keep(pool, replay_rows=4 // micros, lambda_=LAMBDA, objective=objective, teacher=teacher)
    plain = trained(KINDS[kind].make(tmp_path / "plain", None, **how))
    kept = trained(KINDS[kind].make(tmp_path / "kept", settings, **how))
    expected = dense_gradient(pool, objective)
    for name, gradient in expected.items():
        moved = (plain[name] - kept[name]).double() / (rate * LAMBDA)
        torch.testing.assert_close(moved, gradient.double(), rtol=1e-3, atol=1e-5)
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 0.01


@pytest.mark.parametrize("kind", ["Trainer", "SFT", "DPO", "KTO"])
def test_accumulating_eight_rows_equals_one_batch_of_eight(tmp_path: Path, pool: ReplayPool, kind: str) -> None:
    # KTO centers its loss on the micro-batch, so only its parent's cut can be compared there.
    runs = []
    for micros in (1, 8):
        settings = keep(pool, replay_rows=8 // micros, lambda_=LAMBDA)
        cut = {"per_device_train_batch_size": 8 // micros, "gradient_accumulation_steps": micros}
        if kind == "KTO":
            cut |= {"loss_type": "apo_zero_unpaired"}
        runs.append(trained(KINDS[kind].make(tmp_path / str(micros), settings, max_steps=2, **cut, **SEQUENTIAL)))
    assert largest_gap(*runs) <= 2e-6


SEQUENTIAL = {"train_sampling_strategy": "sequential"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, pool: ReplayPool, kind: str) -> None:
    settings, length = keep(pool, drift_every=1), {"max_steps": 4, "num_train_epochs": 2}
    whole = trained(KINDS[kind].make(tmp_path / "whole", settings, **length))
    KINDS[kind].make(tmp_path / "parts", settings, **length, save_strategy="steps", save_steps=2).train()
    rest = KINDS[kind].make(tmp_path / "parts", settings, **length)
    rest.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))
    assert largest_gap(whole, dict(rest.model.state_dict())) == 0.0
    rows = [read_rows(tmp_path / name / "runs.jsonl") for name in ("whole", "parts")]
    assert [[row[key] for key in ("step", "KL", "L_f", "L_ft")] for row in rows[0]] == [
        [row[key] for key in ("step", "KL", "L_f", "L_ft")] for row in rows[1]
    ]
    assert rows[0][0]["KL"] == pytest.approx(0.0, abs=1e-6)
    assert rows[0][-1]["KL"] > 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_the_signature_is_the_parents_with_keep(kind: str) -> None:
    parent, ours = (inspect.signature(one).parameters for one in (KINDS[kind].parent, KINDS[kind].ours))
    assert [name for name in ours if name != "keep"] == list(parent)
    assert ours["keep"].kind is inspect.Parameter.KEYWORD_ONLY


def test_positional_arguments_are_the_parents(tmp_path: Path, pool: ReplayPool) -> None:
    sft, dpo, tokenizer = KINDS["SFT"], KINDS["DPO"], make_tokenizer()
    args = sft.config(output_dir=str(tmp_path / "sft"), **SHARED)
    trainer = sft.ours(make_model(), args, None, sft.extra()["train_dataset"], None, tokenizer, keep=keep(pool))
    assert trainer.args is args
    args, pairs = dpo.config(output_dir=str(tmp_path / "dpo"), **SHARED), preferences()["train_dataset"]
    model = model_on_disk(tmp_path / "model")
    trainer = dpo.ours(model, None, args, None, pairs, None, tokenizer, keep=keep(pool))
    assert trainer.args is args


def fresh_adapter(folder: Path) -> PeftModel:
    return get_peft_model(model_on_disk(folder), LoraConfig(r=4, target_modules="all-linear"))


@pytest.mark.parametrize("replay", ["pool", "path", "none"])
@pytest.mark.parametrize("form", [str, model_on_disk, fresh_adapter])
def test_a_model_may_be_a_name_a_model_or_a_fresh_adapter(
    tmp_path: Path, pool: ReplayPool, form: Callable[[Path], Any], replay: str
) -> None:
    model_on_disk(tmp_path / "model")
    given = {"pool": pool, "path": pool.folder, "none": None}[replay]
    settings = keep(pool, replay=given, replay_tokens=96, replay_length=16)
    trainer = KINDS["SFT"].make(tmp_path / "run", settings, model=form(tmp_path / "model"), max_steps=1)
    trainer.train()
    first, *_, last = read_rows(tmp_path / "run" / "runs.jsonl")
    assert first["base"] == pool.settings.base
    assert abs(first["KL"]) < 1e-6 < last["KL"]


def test_a_processor_serves_through_its_tokenizer(tmp_path: Path) -> None:
    processor = LlavaProcessor(image_processor=CLIPImageProcessor(), tokenizer=make_tokenizer())
    settings = KeepConfig(replay_tokens=64, replay_length=16, drift_rows=2)
    kind = KINDS["Trainer"]
    args = kind.config(output_dir=str(tmp_path), **SHARED)
    data = {**kind.extra(), "processing_class": processor}
    trainer = kind.ours(make_model(), args, **data, keep=settings)
    assert trainer.context.pool.settings.start_text == "<|endoftext|>"


class KeepRewardTrainer(KeepMixin, RewardTrainer):
    """A trainer that cannot keep."""


def test_a_model_without_a_language_model_head_is_refused(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=259, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, num_labels=1, pad_token_id=2,
    )  # fmt: skip
    given: dict[str, Any] = {
        "args": RewardConfig(output_dir=str(tmp_path), **SHARED),
        "train_dataset": preferences()["train_dataset"],
        "processing_class": make_tokenizer(),
    }
    with pytest.raises(ConfigError, match="LlamaForSequenceClassification has no language-model head"):
        KeepRewardTrainer(model=LlamaForSequenceClassification(config), **given, keep=KeepConfig())
    trained(KeepRewardTrainer(model=LlamaForSequenceClassification(config), **given, keep=PLAIN))


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    config = T5Config(vocab_size=259, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=4, decoder_start_token_id=0)
    with pytest.raises(ConfigError, match="encoder-decoder"):
        KINDS["Trainer"].make(tmp_path, KeepConfig(), model=T5ForConditionalGeneration(config))


class LosesTheTerm(KINDS["SFT"].ours):  # type: ignore[misc]
    """A host that computes its loss elsewhere: the term would be lost without a word."""

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        loss = model(**{key: inputs[key] for key in ("input_ids", "labels")}).loss
        self.accelerator.backward(loss)
        return loss.detach()


def test_a_host_that_would_lose_the_term_is_refused(tmp_path: Path, pool: ReplayPool) -> None:
    sft = KINDS["SFT"]
    args = sft.config(output_dir=str(tmp_path), **SHARED)
    args.max_steps = 1  # also a single step
    trainer = LosesTheTerm(make_model(), args, **sft.extra(), keep=keep(pool))
    with pytest.raises(ConfigError, match="computed 0 losses for 1 micro-batches"):
        trainer.train()


class BreaksDown(TrainerCallback):
    """Makes a weight NaN after the first step."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 1:
            with torch.no_grad():
                kwargs["model"].model.norm.weight[0] = math.nan


@pytest.mark.parametrize("readings", [{}, {"drift_every": 1}])
def test_lambda_zero_goes_on_through_nan_as_the_parent_does(
    tmp_path: Path, pool: ReplayPool, readings: dict[str, int]
) -> None:
    settings = KeepConfig(lambda_=0.0, replay=pool, drift_rows=4, **readings)
    for name, keeping in (("parent", None), ("ours", settings)):
        trainer = KINDS["SFT"].make(tmp_path / name, keeping)
        trainer.add_callback(BreaksDown())
        trainer.train()
        assert trainer.state.global_step == 3
    assert [row["step"] for row in read_rows(tmp_path / "ours" / "runs.jsonl")] == ([0, 1] if readings else [])


def test_with_replay_nan_ends_the_run(tmp_path: Path, pool: ReplayPool) -> None:
    trainer = KINDS["SFT"].make(tmp_path, keep(pool))
    trainer.add_callback(BreaksDown())
    with pytest.raises(Diverged, match="became nan at step 2"):
        trainer.train()


def test_another_seed_or_length_in_the_same_folder_works_as_for_the_parent(tmp_path: Path) -> None:
    small: dict[str, Any] = {"replay_tokens": 160, "drift_rows": 2}
    for seed, length in ((1, 16), (2, 16), (2, 32), (1, 16)):
        trainer = KINDS["SFT"].make(tmp_path, KeepConfig(replay_length=length, **small), seed=seed, max_steps=1)
        trainer.train()
    assert len(list(tmp_path.glob("replay-*"))) == 3


def test_a_second_training_keeps_the_readings_of_the_first(tmp_path: Path, pool: ReplayPool) -> None:
    trainer = KINDS["SFT"].make(tmp_path, keep(pool))
    trainer.train()
    first = read_rows(tmp_path / "runs.jsonl")
    trainer.train()
    assert read_rows(tmp_path / "runs-1.jsonl") == first
    second = read_rows(tmp_path / "runs.jsonl")
    assert second[0]["step"] == 0
    assert second[0]["KL"] == pytest.approx(first[-1]["KL"], rel=1e-5), "it goes on from the tuned weights"


class Stumbles(TrainerCallback):
    """Breaks a training off in the middle of its second step."""

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 1:
            raise MemoryError


def test_a_training_that_was_broken_off_in_a_step_can_start_again(tmp_path: Path, pool: ReplayPool) -> None:
    trainer = KINDS["SFT"].make(tmp_path, keep(pool), gradient_accumulation_steps=2)
    trainer.add_callback(Stumbles())
    with pytest.raises(MemoryError):
        trainer.train()
    trainer.remove_callback(Stumbles)
    trainer.train()
    assert trainer.state.global_step == 3
