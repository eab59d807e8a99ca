"""What opens a row bears neither loss nor reading, however many tokens it has: in the trainer, the loop, a budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from keeptune.audit.texts import rows_of, self_rows
from keeptune.errors import ConfigError
from keeptune.replay.batch import ReplayBatch
from keeptune.replay.generate import sample_pool
from keeptune.replay.pool import ReplayPool
from keeptune.train.budget.certificate import FILE
from keeptune.train.loop import keep_tuning
from keeptune.train.readings import read_rows
from keeptune.train.trainers import KeepSFTTrainer
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.openings import RAGGED, ragged_pool
from tests.helpers.training import config, in_trainer_order, keep, largest_gap, task_rows, trained


@pytest.fixture
def pool(tmp_path: Path) -> ReplayPool:
    return ragged_pool(tmp_path / "pool", length=16, rows=24)


@torch.no_grad()
def mean_kl(tuned: torch.nn.Module, batch: ReplayBatch, openings: list[list[int]]) -> float:
    """Dense KL(base‖tuned) over the targets of rows with these openings."""
    log_p, log_q = (model.eval()(input_ids=batch.inputs_BP).logits.log_softmax(-1) for model in (make_model(), tuned))
    kl_BP = (log_p.exp() * (log_p - log_q)).sum(-1)
    kept = [kl_P[len(opening) - 1 :][: batch.length] for kl_P, opening in zip(kl_BP, openings, strict=True)]
    return torch.cat(kept).mean().item()


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_loop_and_the_trainer_see_the_same_targets(tmp_path: Path, pool: ReplayPool, accumulate: int) -> None:
    settings = keep(pool, budget=0.02, drift_every=2)
    args = config(
        tmp_path / "run", gradient_accumulation_steps=accumulate, max_steps=4, lr_scheduler_type="constant",
        train_sampling_strategy="sequential",
    )  # fmt: skip
    trainer = KeepSFTTrainer(
        model=make_model(), args=args, keep=settings, train_dataset=task_rows(), processing_class=make_tokenizer()
    )
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.0, eps=args.adam_epsilon)
    batches = in_trainer_order(trainer)
    how = {"optimizer": optimizer, "steps": 4, "keep": settings, "accumulate": accumulate, "seed": args.seed}
    readings = list(keep_tuning(model, batches, pool, **how))
    assert largest_gap(trained(trainer), model.state_dict()) <= 1e-6
    assert len({reading.lambda_ for reading in readings}) > 1
    # 24 rows: 13 to train on, 4 to read drift on, 2 to scale by, 5 to certify on.
    rows = read_rows(tmp_path / "run" / "runs.jsonl")
    openings = [RAGGED[row % 4] for row in range(24)]
    assert rows[-1]["KL"] == pytest.approx(mean_kl(model, pool.batch(torch.arange(13, 17)), openings[13:17]), rel=1e-3)
    certificate = json.loads((tmp_path / "run" / FILE).read_text())
    assert certificate["tokens"] == 5 * 16
    held_out = mean_kl(model, pool.batch(torch.arange(19, 24)), openings[19:])
    assert certificate["kl"]["value"] == pytest.approx(held_out, rel=1e-3)


@pytest.mark.parametrize("lambda_", [0.0, 1.0])
def test_a_drift_text_is_read_after_the_openings_of_the_pool(tmp_path: Path, pool: ReplayPool, lambda_: float) -> None:
    (tmp_path / "text.txt").write_text("An old text of one hundred characters, which nobody should ever forget. " * 2)
    settings = keep(pool, drift_text=str(tmp_path / "text.txt"), lambda_=lambda_, replay_length=16, drift_rows=1)
    trainer = KeepSFTTrainer(
        model=make_model(), args=config(tmp_path / "run"), keep=settings, train_dataset=task_rows(),
        processing_class=make_tokenizer(),
    )  # fmt: skip
    assert trainer.context is not None
    batch = trainer.context.drift_rows
    assert batch.tokens_BW[0, : len(RAGGED[0])].tolist() == RAGGED[0]
    assert make_tokenizer().decode(batch.targets_BT[0]) == "An old text of o"


def test_an_audit_of_own_text_counts_no_opening(tmp_path: Path) -> None:
    rows = self_rows(make_model(), make_tokenizer(), tmp_path, docs=5, length=13, seed=0, prompts="chat")
    for row in rows:
        opening = [label for label in row["labels"] if label == -100]
        assert len(row["input_ids"]) - len(opening) == 12 and row["labels"][len(opening) :] == row["input_ids"][-12:]


def test_the_texts_of_an_audit_begin_as_its_own_text_does(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("An old text of one hundred characters, which nobody should ever forget. " * 2)
    size = {"tokens": 3 * 19, "length": 19, "seed": 0, "predictions": "none"}
    pool = sample_pool(make_model(), make_tokenizer(), tmp_path / "self", opening="text", **size)
    sources = {"self": "self", "old": str(tmp_path / "text.txt")}
    amount = {"docs": 3, "length": 20, "windows": 2, "seed": 0}
    rows = rows_of(sources, make_model(), make_tokenizer(), tmp_path, **amount)
    first, later = rows["old"]
    opening = pool.settings.openings[0]
    assert first["input_ids"][:14] == rows["self"][0]["input_ids"][:14] == opening
    assert first["labels"][:15] == [-100] * 14 + make_tokenizer()("A")["input_ids"]
    assert len(first["input_ids"]) == len(rows["self"][0]["input_ids"]) == 33 and len(later["input_ids"]) == 20


def test_a_given_pool_opens_as_it_does(tmp_path: Path, pool: ReplayPool) -> None:
    with pytest.raises(ConfigError, match="open as 'start', and opening is 'text'"):
        KeepSFTTrainer(
            model=make_model(), args=config(tmp_path / "run"), keep=keep(pool, opening="text"),
            train_dataset=task_rows(), processing_class=make_tokenizer(),
        )  # fmt: skip
