"""FINCH: the formula, the same in every loop and however a run is cut up, and exact after a resume."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from keeptune.replay.generate import sample_pool
from keeptune.replay.pool import ReplayPool
from keeptune.train.loop import keep_tuning
from recipes.finch import FinchKeepSFTTrainer, FinchSchedule
from tests.helpers.forked import Forked
from tests.helpers.launchers import PYTHON, TORCHRUN
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.training import config, in_trainer_order, keep, largest_gap, task_rows, trained

PEAK = 3e-3


def by_the_paper(losses: list[float], start: float, warmup: int = 0) -> list[float]:
    """Learning rates by the paper's formula, κ from the first loss."""
    kappa, mean, rates = start * PEAK * math.sqrt(losses[0] + 1e-8), losses[0], []
    for step, loss in enumerate(losses):
        mean = loss if step == 0 else 0.9 * mean + 0.1 * loss
        rate = min(kappa / math.sqrt(mean + 1e-8), PEAK)
        rates.append(rate * min(1.0, step / warmup) if warmup else rate)
    return rates


def make_trainer(
    folder: Path, pool: ReplayPool, *, rows: int = 4, objective: str = "kl", **args: Any
) -> FinchKeepSFTTrainer:
    return FinchKeepSFTTrainer(
        model=make_model(),
        args=config(folder, per_device_train_batch_size=rows, **args),
        finch=0.5,
        keep=keep(pool, replay_rows=rows, objective=objective),
        train_dataset=task_rows(),
        processing_class=make_tokenizer(),
    )


def logged(trainer: FinchKeepSFTTrainer, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


@pytest.mark.parametrize("warmup", [0, 3])
def test_rates_are_the_papers(warmup: int) -> None:
    losses = [4.0, 8.0, 3.0, 2.0, 0.1, 0.0, 0.0, *[0.0] * 40, 100.0]
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 2 * PEAK}], lr=PEAK)
    schedule = FinchSchedule(optimizer, start=0.5, warmup_steps=warmup)
    taken = []
    for loss in losses:
        schedule.see(loss)
        taken.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    expected = by_the_paper(losses, 0.5, warmup)
    assert [rate for rate, _ in taken] == pytest.approx(expected)
    assert [rate for _, rate in taken] == pytest.approx([2 * rate for rate in expected])
    assert max(expected) == PEAK
    assert taken[-1][0] < PEAK, "a loss that leaps makes the step small again"


def test_the_trainer_shows_it_the_task_loss_alone(tmp_path: Path, pool: ReplayPool) -> None:
    trainer = make_trainer(tmp_path / "run", pool, objective="ntp", max_steps=8, warmup_steps=2)
    trainer.train()
    total, replay = logged(trainer, "loss"), logged(trainer, "replay_ntp")
    task = [loss - ce for loss, ce in zip(total, replay, strict=True)]
    assert logged(trainer, "learning_rate") == pytest.approx(by_the_paper(task, 0.5, warmup=2), rel=1e-5)
    assert min(replay) > 1, "the rates would differ if the replay term entered them"


def test_accumulating_gives_the_same_rates_and_model(tmp_path: Path, pool: ReplayPool) -> None:
    cut = {"max_steps": 4, "train_sampling_strategy": "sequential"}
    runs = [
        make_trainer(tmp_path / str(micros), pool, rows=8 // micros, gradient_accumulation_steps=micros, **cut)
        for micros in (1, 4)
    ]
    assert largest_gap(*(trained(run) for run in runs)) <= 2e-6
    assert logged(runs[0], "learning_rate") == pytest.approx(logged(runs[1], "learning_rate"), rel=1e-6)


def test_the_plain_loop_takes_the_same_steps(tmp_path: Path, pool: ReplayPool) -> None:
    trainer = make_trainer(
        tmp_path / "run", pool, rows=2, max_steps=4, gradient_accumulation_steps=2, warmup_steps=2,
        train_sampling_strategy="sequential",
    )  # fmt: skip
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, weight_decay=0.0, eps=trainer.args.adam_epsilon)
    schedule = FinchSchedule(optimizer, start=0.5, warmup_steps=2)
    readings = list(
        keep_tuning(
            model, in_trainer_order(trainer), pool, optimizer=optimizer, steps=4, keep=trainer.keep, accumulate=2,
            scheduler=schedule, before_step=lambda reading: schedule.see(reading.task_loss), seed=trainer.args.seed,
        )
    )  # fmt: skip
    assert largest_gap(trained(trainer), dict(model.state_dict())) <= 1e-6
    expected = by_the_paper([reading.task_loss for reading in readings], 0.5, warmup=2)
    assert logged(trainer, "learning_rate") == pytest.approx(expected, rel=1e-5)


def test_a_resumed_run_takes_the_very_steps_it_would_have_taken(tmp_path: Path, pool: ReplayPool) -> None:
    whole = make_trainer(tmp_path / "whole", pool)
    weights = trained(whole)
    make_trainer(tmp_path / "parts", pool, save_strategy="steps", save_steps=3).train()
    rest = make_trainer(tmp_path / "parts", pool)
    rest.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-3"))
    assert largest_gap(weights, dict(rest.model.state_dict())) == 0.0
    assert logged(rest, "learning_rate") == logged(whole, "learning_rate")
    assert len(set(logged(whole, "learning_rate"))) == 6


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    script = tmp_path / "finch_run.py"
    script.write_text(SCRIPT)
    sample_pool(make_model(), make_tokenizer(), tmp_path / "pool", tokens=20 * 16, length=16, dtype=torch.float32)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    environment["ACCELERATE_USE_CPU"] = "true"
    for launcher, name, rows in ((PYTHON, "one", "4"), (TORCHRUN, "two", "2")):
        command = [*launcher, str(script), str(tmp_path / "pool"), str(tmp_path / name), rows]
        process = (
            Forked(command[1:], environment)
            if launcher is PYTHON
            else subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        )
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error[-3000:]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert largest_gap(one, two) <= 1e-6


def test_two_schedules_and_impossible_starts_are_refused() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=PEAK)
    for start in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match="fraction of the peak"):
            FinchSchedule(optimizer, start=start)


SCRIPT = """
import sys
from recipes.finch import FinchKeepSFTTrainer
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.training import config, task_rows
from keeptune import KeepConfig
from pathlib import Path

pool, out, rows = sys.argv[1:]
trainer = FinchKeepSFTTrainer(
    model=make_model(),
    args=config(Path(out), per_device_train_batch_size=int(rows), train_sampling_strategy="sequential"),
    finch=0.3,
    keep=KeepConfig(replay=pool, drift_rows=4, replay_rows=int(rows)),
    train_dataset=task_rows(),
    processing_class=make_tokenizer(),
)
trainer.train()
trainer.save_model(out)
"""
