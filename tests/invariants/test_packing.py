"""Packed task rows: documents stay strangers to each other, and replay rows are never packed with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from trl import SFTTrainer

from keeptune.replay.generate import sample_pool
from keeptune.replay.pool import ReplayPool
from keeptune.train.readings import read_rows
from keeptune.train.trainers import KeepSFTTrainer
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.training import config, keep, largest_gap, trained

LENGTHS = [5, 24, 11, 17, 3, 9, 30, 14, 2, 31, 8, 20]
PACKED_LENGTH = 32


def documents() -> Dataset:
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, 259, (length,), generator=generator).tolist() for length in LENGTHS]
    return Dataset.from_dict({"input_ids": rows, "labels": rows})


@pytest.fixture
def pool(tmp_path: Path) -> ReplayPool:
    return sample_pool(
        make_model(), make_tokenizer(), tmp_path / "pool", tokens=20 * 16, length=16, dtype=torch.float32
    )


def trainer(folder: Path, pool: ReplayPool, lambda_: float = 1.0, **settings: Any) -> KeepSFTTrainer:
    args = config(folder, **{"packing": True, "max_length": PACKED_LENGTH, "max_steps": 4, **settings})
    return KeepSFTTrainer(
        model=make_model(),
        args=args,
        keep=keep(pool, lambda_=lambda_, replay_rows=8 // args.gradient_accumulation_steps),
        train_dataset=documents(),
        eval_dataset=documents(),
        processing_class=make_tokenizer(),
    )


@pytest.mark.parametrize("strategy", ["bfd", "wrapped"])
def test_lambda_zero_is_sft_trainer_with_the_same_packing(tmp_path: Path, pool: ReplayPool, strategy: str) -> None:
    settings = {"packing": True, "packing_strategy": strategy, "max_length": PACKED_LENGTH, "max_steps": 4}
    settings["per_device_train_batch_size"] = 2
    plain = SFTTrainer(
        model=make_model(),
        args=config(tmp_path / "plain", **settings),
        train_dataset=documents(),
        processing_class=make_tokenizer(),
    )
    assert largest_gap(trained(plain), trained(trainer(tmp_path / "ours", pool, lambda_=0.0, **settings))) == 0.0


def test_packed_documents_train_as_unpacked_ones_do(tmp_path: Path, pool: ReplayPool) -> None:
    runs: dict[bool, dict[str, Tensor]] = {}
    for packing in (False, True):
        run = trainer(tmp_path / str(packing), pool, packing=packing, per_device_train_batch_size=len(LENGTHS))
        assert len(run.train_dataset) == len(LENGTHS) if not packing else len(run.train_dataset) < len(LENGTHS)
        runs[packing] = trained(run)
    assert largest_gap(runs[False], runs[True]) <= 1e-6
    rows = [read_rows(tmp_path / str(packing) / "runs.jsonl") for packing in (False, True)]
    for unpacked, packed in zip(*rows, strict=True):
        for key in ("L_ft", "KL", "L_f"):
            assert packed[key] == pytest.approx(unpacked[key], abs=1e-6)
    assert rows[1][0]["KL"] == pytest.approx(0.0, abs=1e-9)


def test_accumulating_packed_rows_changes_nothing(tmp_path: Path, pool: ReplayPool) -> None:
    runs = [
        trained(
            trainer(
                tmp_path / str(micros), pool, per_device_train_batch_size=2 // micros,
                gradient_accumulation_steps=micros,
            )
        )
        for micros in (1, 2)
    ]  # fmt: skip
    assert largest_gap(*runs) <= 1e-6
