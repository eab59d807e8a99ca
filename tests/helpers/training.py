"""Tiny trainings that the tests of training share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl import SFTConfig, SFTTrainer

from keeptune.replay.pool import ReplayPool
from keeptune.train.config import KeepConfig

STEPS = 6


def task_rows(count: int = 40) -> Dataset:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, 259, (24,), generator=generator).tolist() for _ in range(count)]
    return Dataset.from_dict({"input_ids": rows, "labels": [[-100, -100, *row[2:]] for row in rows]})


def config(folder: Path, **settings: Any) -> SFTConfig:
    defaults: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": STEPS,
        "per_device_train_batch_size": 4,
        "learning_rate": 3e-3,
        # Where gradients are near zero, Adam's default would blow their rounding up to whole steps.
        "adam_epsilon": 1e-4,
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return SFTConfig(**{**defaults, **settings})


def keep(pool: ReplayPool, **settings: Any) -> KeepConfig:
    return KeepConfig(**{"replay": str(pool.folder), "drift_rows": 4, "drift_every": 3, "replay_rows": 2, **settings})


def trained(trainer: SFTTrainer) -> dict[str, Tensor]:
    trainer.train()
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def largest_gap(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def in_trainer_order(trainer: SFTTrainer) -> list[dict[str, Tensor]]:
    return [
        {k: v for k, v in batch.items() if k in ("input_ids", "labels")} for batch in trainer.get_train_dataloader()
    ]
