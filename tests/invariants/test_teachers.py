"""Every teacher says what the base says: all exact ones train the same model, and the wrong ones are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from keeptune.errors import ConfigError
from keeptune.replay.generate import sample_pool
from keeptune.replay.pool import ReplayPool
from keeptune.replay.teachers import CachedHidden, CachedTopK, frozen_head
from keeptune.train.config import KeepConfig
from keeptune.train.loop import keep_tuning
from keeptune.train.readings import read_rows
from keeptune.train.replay_term import replay_sum
from keeptune.train.trainers import KeepSFTTrainer
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.training import config, largest_gap, task_rows, trained

VOCABULARY = make_model().config.vocab_size


@pytest.fixture(scope="module")
def pools(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ReplayPool]:
    folder = tmp_path_factory.mktemp("pools")
    shared = {"tokens": 20 * 16, "length": 16, "seed": 0, "dtype": torch.float32}
    kept: dict[str, dict[str, Any]] = {
        "hidden": {"predictions": "hidden"},
        "topk": {"predictions": "topk", "top_k": VOCABULARY - 1},
        "none": {"predictions": "none"},
    }
    return {
        name: sample_pool(make_model(), make_tokenizer(), folder / name, **shared, **settings)
        for name, settings in kept.items()
    }


def lora(**settings: Any) -> LoraConfig:
    return LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **settings)


def trainer(folder: Path, pool: ReplayPool, teacher: str, model: Any = None, **settings: Any) -> KeepSFTTrainer:
    keep = KeepConfig(replay=str(pool.folder), drift_rows=4, drift_every=3, replay_rows=2, teacher=teacher)
    return KeepSFTTrainer(
        model=model or make_model(), args=config(folder), keep=keep, train_dataset=task_rows(),
        processing_class=make_tokenizer(), **settings,
    )  # fmt: skip


@pytest.mark.parametrize("adapter", [None, lora(), lora(use_dora=True), lora(modules_to_save=["lm_head"])])
def test_exact_teachers_train_the_same_model(
    tmp_path: Path, pools: dict[str, ReplayPool], adapter: LoraConfig | None
) -> None:
    reference = trained(trainer(tmp_path / "hidden", pools["hidden"], "hidden", peft_config=adapter))
    for teacher in ("live", "adapter") if adapter else ("live",):
        run = trainer(tmp_path / teacher, pools["none"], teacher, peft_config=adapter)
        assert largest_gap(reference, trained(run)) <= 1e-6
        rows = [read_rows(tmp_path / name / "runs.jsonl") for name in ("hidden", teacher)]
        for left, right in zip(*rows, strict=True):
            assert left["KL"] == pytest.approx(right["KL"], abs=1e-7)


@pytest.mark.parametrize("objective", ["kl", "reverse_kl", "jensen_shannon"])
def test_top_k_of_almost_every_word_is_the_exact_teacher(pools: dict[str, ReplayPool], objective: str) -> None:
    values, gradients = [], []
    for name, teacher in (("hidden", CachedHidden(frozen_head(make_model(), torch.float32))), ("topk", CachedTopK())):
        student = make_model(seed=1)
        loss = replay_sum(student, pools[name].batch(torch.arange(8)), teacher, objective)
        loss.backward()
        values.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None]))
    assert values[1] == pytest.approx(values[0], rel=2e-3)  # log-probabilities are kept in fp16
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 2e-3


def test_top_k_trains_and_holds(tmp_path: Path, pools: dict[str, ReplayPool]) -> None:
    drift = {}
    for lambda_ in (0.0, 10.0):
        keep = KeepConfig(replay=pools["topk"], drift_rows=4, drift_every=3, lambda_=lambda_)
        run = KeepSFTTrainer(
            model=make_model(), args=config(tmp_path / str(lambda_)), train_dataset=task_rows(), keep=keep,
            processing_class=make_tokenizer(),
        )  # fmt: skip
        run.train()
        drift[lambda_] = read_rows(tmp_path / str(lambda_) / "runs.jsonl")[-1]["KL"]
    assert drift[10.0] < 0.5 * drift[0.0]


@pytest.mark.parametrize("teacher", ["hidden", "live"])
def test_the_plain_loop_takes_the_same_teachers(pools: dict[str, ReplayPool], teacher: str) -> None:
    pool = pools["hidden" if teacher == "hidden" else "none"]
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batch = {name: torch.tensor(task_rows(4)[name]) for name in ("input_ids", "labels")}
    keep = KeepConfig(drift_rows=4, teacher=teacher)  # type: ignore[arg-type]
    readings = list(keep_tuning(model, [batch] * 3, pool, optimizer=optimizer, steps=3, keep=keep))
    assert abs(readings[0].replay_loss) < 1e-6 < readings[-1].replay_loss


def test_the_choice_is_what_the_pool_holds_and_is_said(
    tmp_path: Path, pools: dict[str, ReplayPool], capsys: pytest.CaptureFixture[str]
) -> None:
    expected = {"hidden": "teacher: hidden, exact", "topk": "teacher: topk", "none": "teacher: live"}
    for held, words in expected.items():
        trainer(tmp_path / held, pools[held], "auto")
        message = capsys.readouterr().err
        assert words in message and "disk" in message and "memory" in message
    trainer(tmp_path / "adapter", pools["none"], "auto", peft_config=lora())
    assert "teacher: adapter" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_an_adapter_that_takes_weights_of_the_base_is_held_to_the_model_before_its_first_step(
    tmp_path: Path, pools: dict[str, ReplayPool], kind: str
) -> None:
    reference = None
    for teacher, pool in (("hidden", "hidden"), ("live", "none"), ("auto", "none")):
        folder = tmp_path / f"{teacher} {pool}"
        weights = trained(trainer(folder, pools[pool], teacher, peft_config=lora(init_lora_weights=kind)))
        reference = reference or weights
        assert largest_gap(weights, reference) < 1e-5
        rows = read_rows(folder / "runs.jsonl")
        assert abs(rows[0]["KL"]) < 1e-6 < rows[-1]["KL"]
    with pytest.raises(ConfigError, match=f"'{kind}' moves weights of the base into the adapter.* does not recover"):
        trainer(tmp_path / "run", pools["none"], "adapter", peft_config=lora(init_lora_weights=kind))


def test_bad_choices_are_refused(tmp_path: Path, pools: dict[str, ReplayPool]) -> None:
    half_frozen = get_peft_model(make_model(), lora())
    half_frozen.get_base_model().model.norm.weight.requires_grad_(True)
    with pytest.raises(ConfigError, match="tokens only"):
        trainer(tmp_path / "a", pools["none"], "hidden")
    with pytest.raises(ConfigError, match="needs an adapter"):
        trainer(tmp_path / "b", pools["none"], "adapter")
    with pytest.raises(ConfigError, match="of the base is trainable"):
        trainer(tmp_path / "c", pools["none"], "adapter", model=half_frozen)
    with pytest.raises(ConfigError, match="unknown teacher"):
        KeepConfig(teacher="oracle")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="top_k"):
        sample_pool(
            make_model(), make_tokenizer(), tmp_path / "pool", tokens=16, length=8, predictions="topk",
            top_k=VOCABULARY,
        )  # fmt: skip
