"""A budget's λ is one walk: in the trainer and the plain loop, however a step is cut up, and over resumes and kills."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig

from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.replay.generate import sample_pool
from keeptune.replay.pool import ReplayPool
from keeptune.train.budget.certificate import FILE
from keeptune.train.budget.scale import GOAL, LEAST, MOST
from keeptune.train.config import KeepConfig
from keeptune.train.drift import read_drift
from keeptune.train.loop import keep_tuning
from keeptune.train.readings import read_rows
from keeptune.train.trainers import KeepSFTTrainer
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.processes import PLAIN, TORCHRUN, Task, finish, goes_on, killed_at, make_task, start, weights
from tests.helpers.processes import TUNE as SHARED
from tests.helpers.training import config, in_trainer_order, keep, largest_gap, task_rows, trained

BUDGET = 0.02
TUNE = [*SHARED, "--budget", str(BUDGET)]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return make_task(tmp_path_factory.mktemp("task"))


@pytest.fixture
def pool(tmp_path: Path) -> ReplayPool:
    return sample_pool(
        make_model(), make_tokenizer(), tmp_path / "pool", tokens=24 * 16, length=16, seed=0, dtype=torch.float32
    )


def steered(folder: Path, pool: ReplayPool, rows: Dataset | None = None, **settings: Any) -> KeepSFTTrainer:
    kept = {name: settings.pop(name) for name in ("drift_every", "replay_rows", "drift_text") if name in settings}
    args: SFTConfig = config(folder, train_sampling_strategy="sequential", **settings)
    return KeepSFTTrainer(
        model=make_model(), args=args, keep=keep(pool, budget=BUDGET, **kept),
        train_dataset=rows or task_rows(), processing_class=make_tokenizer(),
    )  # fmt: skip


def walk(trainer: KeepSFTTrainer) -> list[float]:
    return [entry["lambda"] for entry in trainer.state.log_history if "lambda" in entry]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_plain_loop_walks_as_the_trainer(tmp_path: Path, pool: ReplayPool, accumulate: int) -> None:
    shared = {"gradient_accumulation_steps": accumulate, "max_steps": 5, "lr_scheduler_type": "constant"}
    trainer = steered(tmp_path / "run", pool, drift_every=2, **shared)
    model = make_model()
    readings = list(
        keep_tuning(
            model,
            in_trainer_order(trainer),
            pool,
            optimizer=torch.optim.AdamW(
                model.parameters(),
                lr=trainer.args.learning_rate,
                weight_decay=0.0,
                eps=trainer.args.adam_epsilon,
            ),
            steps=5,
            keep=trainer.keep,
            accumulate=accumulate,
            seed=trainer.args.seed,
        )
    )
    assert largest_gap(trained(trainer), model.state_dict()) <= 1e-6
    assert walk(trainer) == pytest.approx([reading.lambda_ for reading in readings], rel=1e-5)
    assert len(set(walk(trainer))) > 2


def test_accumulating_eight_rows_walks_as_one_batch_of_eight(tmp_path: Path, pool: ReplayPool) -> None:
    walks = []
    for accumulate in (1, 8):
        trainer = steered(
            tmp_path / str(accumulate), pool, per_device_train_batch_size=8 // accumulate, max_steps=5,
            gradient_accumulation_steps=accumulate, replay_rows=8 // accumulate,
        )  # fmt: skip
        trainer.train()
        walks.append(walk(trainer))
    assert walks[0] == pytest.approx(walks[1], rel=5e-6)


def test_resumed_run_goes_on_to_the_same_bits(tmp_path: Path, pool: ReplayPool) -> None:
    whole = steered(tmp_path / "whole", pool)
    weights_of_whole = trained(whole)
    saving = {"save_strategy": "steps", "save_steps": 3}
    steered(tmp_path / "parts", pool, **saving).train()
    rest = steered(tmp_path / "parts", pool, **saving)
    rest.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-3"))
    assert largest_gap(weights_of_whole, dict(rest.model.state_dict())) == 0.0
    assert walk(whole) == walk(rest)
    one, other = (json.loads((tmp_path / folder / FILE).read_text()) for folder in ("whole", "parts"))
    assert one == other


def test_a_checkpoint_without_a_budget_is_refused(tmp_path: Path, pool: ReplayPool) -> None:
    shared = {"train_dataset": task_rows(), "processing_class": make_tokenizer()}
    args = config(tmp_path / "run", save_strategy="steps", save_steps=3)
    KeepSFTTrainer(model=make_model(), args=args, keep=keep(pool), **shared).train()
    with pytest.raises(ConfigError, match="without a budget"):
        steered(tmp_path / "run", pool).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))


def test_rows_tell_lambda_and_budget_and_the_certificate_is_of_other_rows(tmp_path: Path, pool: ReplayPool) -> None:
    trainer = steered(tmp_path / "run", pool)
    assert (trainer.context.pool.rows, trainer.context.train_rows) == (24, 13)  # 4 steer, 2 scale, 5 certify
    trainer.train()
    first, *_, last = read_rows(tmp_path / "run" / "runs.jsonl")
    assert (first["lambda"], first["budget"]) == (pytest.approx(0.07 / BUDGET), BUDGET)
    assert last["lambda"] != first["lambda"]
    certificate = json.loads((tmp_path / "run" / FILE).read_text())
    assert certificate["kl"]["documents"] == 5
    assert certificate["kl"]["value"] == pytest.approx(last["KL"], rel=0.5)
    assert certificate["kl"]["value"] != last["KL"]
    assert certificate["verdict"] == "inconclusive"  # five rows are too few for any other


@pytest.mark.parametrize("lora", [None, 4])
def test_the_change_of_the_weights_is_scaled_until_kl_is_what_the_budget_aims_at(
    tmp_path: Path, pool: ReplayPool, lora: int | None
) -> None:
    peft = None if lora is None else LoraConfig(r=lora, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = KeepSFTTrainer(
        model=make_model(), args=config(tmp_path / "run", learning_rate=3e-2 if lora else 3e-3, adam_epsilon=1e-8),
        keep=keep(pool, budget=BUDGET, drift_every=2), train_dataset=task_rows(), processing_class=make_tokenizer(),
        peft_config=peft,
    )  # fmt: skip
    trainer.train()
    context, certificate = trainer.context, json.loads((tmp_path / "run" / FILE).read_text())
    with torch.no_grad():
        on_its_rows, on_drift_rows = (
            read_drift(context, rows)["kl"] for rows in (context.scale_rows, context.drift_rows)
        )
    assert certificate["scale"] in (LEAST, MOST) or on_its_rows == pytest.approx(GOAL * BUDGET, rel=0.03)
    assert certificate["scale"] != 1.0
    assert read_rows(tmp_path / "run" / "runs.jsonl")[-1]["KL"] == pytest.approx(on_drift_rows, rel=1e-5)


def test_with_too_few_rows_nothing_is_scaled_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.INFO, logger="keeptune")
    small = sample_pool(make_model(), make_tokenizer(), tmp_path / "small", tokens=11 * 16, length=16)
    steered(tmp_path / "run", small).train()
    assert json.loads((tmp_path / "run" / FILE).read_text())["scale"] == 1.0
    assert "not scaled to the budget: the pool has too few rows" in caplog.text


def test_a_meter_on_another_text_does_not_steer(tmp_path: Path, pool: ReplayPool) -> None:
    (tmp_path / "old.txt").write_text("Old text that the meter reads, and nothing else. " * 40)
    plain = steered(tmp_path / "plain", pool, drift_every=2)
    other = steered(tmp_path / "other", pool, drift_every=2, drift_text=str(tmp_path / "old.txt"))
    assert largest_gap(trained(plain), trained(other)) == 0.0
    assert walk(plain) == walk(other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 0.0}, "budget is 0.0"),
        ({"budget": -0.1}, "budget is -0.1"),
        ({"budget": float("nan")}, "budget is nan"),
        ({"budget": float("inf")}, "budget is inf"),
        ({"budget": 0.01, "objective": "ntp"}, "the objective is 'ntp'"),
        ({"budget": 0.01, "objective": "reverse_kl"}, "the objective is 'reverse_kl'"),
        ({"objective": "forward_kl"}, "unknown objective 'forward_kl'"),
        ({"budget": 0.01, "lambda_": 0.0}, "lambda is 0"),
        ({"budget": 0.01, "lambda_": 1e5}, "lambda is 100000"),
    ],
)
def test_budgets_that_cannot_be_meant(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        KeepConfig(**settings)


def test_a_pool_too_small_to_certify_on_is_refused(tmp_path: Path) -> None:
    small = sample_pool(make_model(), make_tokenizer(), tmp_path / "small", tokens=7 * 16, length=16)
    with pytest.raises(ConfigError, match="7 rows"):
        steered(tmp_path / "run", small)


def test_after_sigkill_and_on_two_processes_it_is_the_same_walk(task: tuple[Path | str, ...], tmp_path: Path) -> None:
    """Bitwise after a kill; on two processes up to the order of sums."""
    whole, killed, two = (tmp_path / name for name in ("whole", "killed", "two"))
    command = [*task, *TUNE, "--batch-size", "2"]
    code, error = finish(start("tune", *command, "--out", whole))
    assert code == 0, error
    assert "Budget of 0.02 nats per token:" in error
    assert "Budget of 0.02 nats per token:" in (whole / "model" / "README.md").read_text()
    killed_at(7, killed, start("tune", *command, "--out", killed))
    goes_on(command, killed, PLAIN)
    code, error = finish(start("tune", *task, *TUNE, "--batch-size", "1", "--out", two, launcher=TORCHRUN))
    assert code == 0, error
    walks = {run: [row["lambda"] for row in read_rows(run / "runs.jsonl")] for run in (whole, killed, two)}
    assert walks[killed] == walks[whole]
    assert all(torch.equal(value, weights(killed)[name]) for name, value in weights(whole).items())
    assert walks[two] == pytest.approx(walks[whole], rel=5e-6)
    assert len(set(walks[whole])) > 20
