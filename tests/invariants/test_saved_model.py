"""Readings, card, certificate and summary describe the model that is saved; a run's first and last step learn."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import EarlyStoppingCallback, LlamaForCausalLM, get_scheduler

from keeptune import KeepSFTTrainer
from keeptune.errors import ConfigError
from keeptune.laws.readings import read_runs
from keeptune.replay.generate import sample_pool
from keeptune.replay.pool import ReplayPool
from keeptune.runs.folder import claim_folder
from keeptune.runs.run import tune
from keeptune.runs.settings import TuneSettings
from keeptune.runs.trainer import TuneTrainer
from keeptune.train.host.evaluation import held_out_loss
from keeptune.train.readings import read_rows
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.training import config, keep, task_rows

# The highest loss counts as the best, so that it is surely not the last step's.
BEST: dict[str, Any] = {"metric_for_best_model": "eval_loss", "greater_is_better": True}
BEST |= {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps"}
BEST |= {"save_steps": 1, "learning_rate": 0.01}


@pytest.fixture
def pool(tmp_path: Path) -> ReplayPool:
    return sample_pool(
        make_model(), make_tokenizer(), tmp_path / "pool", tokens=24 * 16, length=16, dtype=torch.float32
    )


def settings(model: Path, folder: Path, **more: Any) -> TuneSettings:
    small: dict[str, Any] = {"max_length": 32, "replay_tokens": 96, "replay_length": 16, "drift_rows": 2}
    small |= {"batch_size": 2, "steps": 2, "held_out_rows": 4, "out": str(folder / "run")}
    return TuneSettings(model=str(model), data=str(folder / "*.txt"), **{**small, **more})


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text(f"Text {number} is about the number {number}. " * 9)
    return tmp_path


def test_the_last_reading_is_of_the_best_model_which_is_saved(model_folder: Path, texts: Path) -> None:
    run = settings(model_folder, texts, steps=3, budget=0.05, replay_tokens=320, sft={**BEST, "save_total_limit": None})
    folder = tune(run)
    *before, last = read_rows(texts / "run" / "runs.jsonl")
    best = last["model_step"]
    assert last["step"] == 3 > best == last["N"]
    certificate = json.loads((texts / "run" / "certificate.json").read_text())
    assert certificate["step"] == best
    # The best model's change is scaled to the budget, and then it is read.
    assert 0.7 <= certificate["scale"] <= 1.1
    assert last["L_ft"] == pytest.approx(max(row["L_ft"] for row in before[1:]), rel=0.01)
    assert last["L_ft"] > before[-1]["L_ft"] + 1e-3
    unscaled = next(row["KL"] for row in before if row["step"] == best)
    assert last["KL"] == pytest.approx(unscaled * certificate["scale"] ** 2, rel=0.1)
    said = (folder / "README.md").read_text()
    assert f"{best} of 3 steps (the best model of the run)" in said
    assert f"{last['KL']:.4f}" in said
    assert f"{last['L_ft']:.4f}" in said


def test_the_saved_weights_read_what_the_last_row_says(tmp_path: Path, pool: ReplayPool) -> None:
    halves = {"one": task_rows(6), "two": task_rows(9)}
    shared: dict[str, Any] = {"train_dataset": task_rows(), "processing_class": make_tokenizer()}
    args = config(tmp_path / "run", **{**BEST, "metric_for_best_model": "eval_one_loss", "max_steps": 3})
    trainer = KeepSFTTrainer(model=make_model(), args=args, keep=keep(pool), eval_dataset=halves, **shared)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    *before, last = read_rows(tmp_path / "run" / "runs.jsonl")
    assert len(read_runs([tmp_path / "run"])) == len(before) - 1, "laws read each model once"
    saved = LlamaForCausalLM.from_pretrained(tmp_path / "saved")
    again = KeepSFTTrainer(model=saved.eval(), args=config(tmp_path / "again"), eval_dataset=halves, **shared)
    assert last["L_ft"] == pytest.approx(held_out_loss(again), rel=1e-5)
    assert last["model_step"] < 3


def test_a_run_that_another_callback_stops_is_certified(tmp_path: Path, pool: ReplayPool) -> None:
    args = config(tmp_path / "run", **{**BEST, "max_steps": 9})
    trainer = KeepSFTTrainer(
        model=make_model(), args=args, keep=keep(pool, budget=0.05, drift_rows=2), train_dataset=task_rows(),
        eval_dataset=task_rows(8), processing_class=make_tokenizer(),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=1)],
    )  # fmt: skip
    trainer.train()
    assert trainer.state.global_step < 9
    last = read_rows(tmp_path / "run" / "runs.jsonl")[-1]
    assert json.loads((tmp_path / "run" / "certificate.json").read_text())["step"] == last["model_step"]


def rates_of(scheduler: Any, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(float(scheduler.get_last_lr()[0]))
        optimizer.step()
        scheduler.step()
    return rates


def sgd() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)


def test_every_step_of_a_run_learns(tmp_path: Path, pool: ReplayPool) -> None:
    trainer = TuneTrainer(
        model=make_model(), args=config(tmp_path), keep=keep(pool), train_dataset=task_rows(),
        processing_class=make_tokenizer(),
    )  # fmt: skip
    kinds = ("cosine", "linear", "constant_with_warmup", "inverse_sqrt", "cosine_with_restarts", "constant")
    for kind, (warmup, steps) in product(kinds, [(0.0, 0), (0.05, 1), (3, 3), (0.5, 10)]):
        trainer.args.lr_scheduler_type, trainer.args.warmup_steps = kind, warmup
        trainer.lr_scheduler, optimizer, other = None, sgd(), sgd()
        rates = rates_of(trainer.create_scheduler(20, optimizer), optimizer, 20)
        if steps == 0 or kind == "constant":
            assert rates == rates_of(get_scheduler(kind, other, 0, 20), other, 20), "transformers' own schedule"
        else:
            assert rates[:steps] == pytest.approx([(step + 1) / steps for step in range(steps)]), (kind, warmup)
        assert min(rates) > 0, (kind, warmup)


def test_a_run_of_one_step_learns(model_folder: Path, texts: Path) -> None:
    folder = tune(settings(model_folder, texts, steps=1))
    tuned = LlamaForCausalLM.from_pretrained(folder)
    assert not torch.equal(tuned.lm_head.weight, make_model().lm_head.weight)
    first, last = read_rows(texts / "run" / "runs.jsonl")
    assert (first["step"], last["step"]) == (0, 1)
    assert last["KL"] > 0


@pytest.mark.parametrize(
    ("sft", "made_before"),
    [
        ({"router_aux_loss_coef": 0.1}, True),  # TRL refuses it once it has the model
        ({"dataloader_num_workers": -1}, True),  # torch refuses it when training begins, after the pool is written
        ({"dataloader_num_workers": -1}, False),
    ],
)
def test_a_failed_start_leaves_no_claimed_folder(
    model_folder: Path, texts: Path, sft: dict[str, Any], made_before: bool
) -> None:
    out = texts / "run"
    if made_before:
        out.mkdir()
    with pytest.raises((ConfigError, ValueError)):
        tune(settings(model_folder, texts, sft=sft))
    assert not list(out.iterdir()) if made_before else not out.exists()
    claim_folder(out, settings(model_folder, texts), resume=False, day=date(2026, 11, 29))


def test_a_failed_resume_keeps_its_run(model_folder: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = settings(model_folder, texts)
    tune(run)
    (texts / "run" / "model").rename(texts / "moved")
    fails: Callable[..., Any] = lambda *given, **named: (_ for _ in ()).throw(RuntimeError("a defect"))  # noqa: E731
    monkeypatch.setattr("keeptune.runs.run.build_trainer", fails)
    with pytest.raises(RuntimeError, match="a defect"):
        tune(run, resume=True)
    assert (texts / "run" / "run.json").is_file()
    assert (texts / "run" / "runs.jsonl").is_file()
