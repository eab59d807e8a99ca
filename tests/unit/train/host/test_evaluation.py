"""The meter's task loss is the trainer's own evaluation loss, a mean over tokens, and reading it disturbs nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDataset
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Trainer,
    TrainerCallback,
    default_data_collator,
)
from trl import SFTTrainer

from keeptune import KeepConfig, KeepMixin
from keeptune.replay.pool import ReplayPool
from keeptune.train.host.evaluation import held_out_loss
from keeptune.train.readings import read_rows
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.trainers import KINDS, SHARED, model_on_disk
from tests.helpers.training import keep, task_rows

# TRL means to drop some of what its trainers can still be told.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
PAD = 2


def rows_of_lengths(lengths: tuple[int, ...] = (24, 7, 15, 31, 4, 11)) -> Dataset:
    """Rows whose first two tokens bear no loss."""
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(3, 259, (length,), generator=generator).tolist() for length in lengths]
    return Dataset.from_dict({"input_ids": rows, "labels": [[-100, -100, *row[2:]] for row in rows]})


def left_padded(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Pads on the left, as collators for generation do: only the attention mask tells padding from text."""
    widest = max(len(row["input_ids"]) for row in rows)
    gaps = [widest - len(row["input_ids"]) for row in rows]
    pairs = list(zip(gaps, rows, strict=True))
    return {
        "input_ids": torch.tensor([[PAD] * gap + list(row["input_ids"]) for gap, row in pairs]),
        "labels": torch.tensor([[-100] * gap + list(row["labels"]) for gap, row in pairs]),
        "attention_mask": torch.tensor([[0] * gap + [1] * len(row["input_ids"]) for gap, row in pairs]),
    }


def with_names(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Passes on what is no tensor, too."""
    return {**left_padded(rows), "inputs_embeds": None}


def doubled_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    total = cross_entropy(outputs.logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), reduction="sum")
    count = (labels[:, 1:] != -100).sum() if num_items_in_batch is None else num_items_in_batch
    return 2 * total / count


def more_columns() -> Dataset:
    rows = rows_of_lengths()
    return rows.add_column("source", [f"document {number}" for number in range(len(rows))]).add_column(
        "weight", [0.5] * len(rows)
    )


def streamed() -> IterableDataset:
    def generate() -> Iterator[dict[str, list[int]]]:
        yield from rows_of_lengths()

    return IterableDataset.from_generator(generate)


@dataclass(frozen=True, kw_only=True)
class Case:
    """How one trainer evaluates."""

    kind: str = "SFT"
    rows: Callable[[], Any] = rows_of_lengths
    settings: dict[str, Any] = field(default_factory=dict)
    given: dict[str, Any] = field(default_factory=dict)


def prompts_and_completions() -> Dataset:
    return Dataset.from_list([{"prompt": f"{n} and {n}", "completion": f" are {n} twos" * n} for n in range(1, 7)])


CASES = {
    "rows": Case(),
    "plain trainer": Case(kind="Trainer", given={"data_collator": left_padded}),
    "padding on the left": Case(given={"data_collator": left_padded}),
    "a collator's own columns": Case(kind="Trainer", given={"data_collator": with_names}),
    "columns that no model reads": Case(rows=more_columns),
    "columns that cannot be batched": Case(
        kind="Trainer", rows=lambda: task_rows(6).add_column("spans", [[0] * n for n in range(6)])
    ),
    "columns kept": Case(settings={"remove_unused_columns": False}),
    "label smoothing": Case(settings={"label_smoothing_factor": 0.2}),
    "label smoothing, plain": Case(
        kind="Trainer", settings={"label_smoothing_factor": 0.2}, given={"data_collator": left_padded}
    ),
    "a loss of one's own": Case(given={"compute_loss_func": doubled_loss}),
    "dynamic fine-tuning": Case(settings={"loss_type": "dft"}),
    "packed": Case(settings={"packing": True, "max_length": 64}),
    "packed for evaluation only": Case(settings={"eval_packing": True, "max_length": 64}),
    "completions": Case(rows=prompts_and_completions),
    "prompts and completions": Case(rows=prompts_and_completions, settings={"completion_only_loss": False}),
    "a stream": Case(rows=streamed),
    "workers": Case(settings={"dataloader_num_workers": 1, "dataloader_persistent_workers": True}),
    "groups of like length": Case(settings={"train_sampling_strategy": "group_by_length"}),
    "losses only": Case(settings={"prediction_loss_only": True}),
    "bfloat16": Case(settings={"bf16": True}),
}


def trainer_of(case: Case, folder: Path, keeping: KeepConfig, rows: Any = None, **settings: Any) -> Any:
    kind = KINDS[case.kind]
    args = kind.config(**{**SHARED, "output_dir": str(folder), **case.settings, **settings})
    given = {**kind.extra(), **case.given, "eval_dataset": case.rows() if rows is None else rows}
    return kind.ours(model=model_on_disk(folder.parent / "model"), args=args, keep=keeping, **given)


@pytest.mark.parametrize("name", CASES)
def test_the_reading_is_what_the_trainer_evaluates(tmp_path: Path, pool: ReplayPool, name: str) -> None:
    case = CASES[name]
    trainer = trainer_of(case, tmp_path / "run", keep(pool), per_device_eval_batch_size=16)
    trainer.model.eval()
    in_one_batch = trainer.evaluate()["eval_loss"]
    assert held_out_loss(trainer) == pytest.approx(in_one_batch, rel=1e-5)
    trainer.args.per_device_eval_batch_size = 1
    assert held_out_loss(trainer) == pytest.approx(in_one_batch, rel=2e-3 if name == "bfloat16" else 1e-5)


def test_the_mean_is_over_the_tokens_of_all_sets(tmp_path: Path, pool: ReplayPool) -> None:
    rows = rows_of_lengths()
    sets = {"first": rows.select(range(1)), "others": rows.select(range(1, 6))}
    trainer = trainer_of(Case(), tmp_path, keep(pool), rows=sets, per_device_eval_batch_size=2)
    trainer.model.eval()
    total = count = 0.0
    for row in rows:
        ids, labels = (torch.tensor(row[name])[None] for name in ("input_ids", "labels"))
        loss = trainer.model(input_ids=ids, labels=labels).loss.item()
        total, count = total + loss * (ids.numel() - 2), count + ids.numel() - 2
    assert held_out_loss(trainer) == pytest.approx(total / count, rel=1e-5)


def test_pixels_are_seen(tmp_path: Path) -> None:
    text = LlamaConfig(
        vocab_size=259, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, initializer_range=0.15,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=4, patch_size=2
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=vision, image_token_index=258))
    ids = [[258] * 4 + list(range(10 + n, 20 + n)) for n in range(4)]
    rows = Dataset.from_dict(
        {
            "input_ids": ids,
            "labels": [[-100] * 4 + row[4:] for row in ids],
            "pixel_values": torch.randn(4, 3, 4, 4).tolist(),
        }
    )
    kind = KINDS["Trainer"]
    trainer = kind.ours(
        model=model, args=kind.config(output_dir=str(tmp_path), **{**SHARED, "max_steps": 1}), train_dataset=rows,
        eval_dataset=rows, processing_class=make_tokenizer(), data_collator=default_data_collator,
        keep=KeepConfig(replay_tokens=64, replay_length=16, drift_rows=2),
    )  # fmt: skip
    trainer.model.eval()
    seen = held_out_loss(trainer)
    assert seen == pytest.approx(trainer.evaluate()["eval_loss"], rel=1e-5)
    trainer.eval_dataset = rows.map(lambda row: {"pixel_values": (torch.tensor(row["pixel_values"]) + 1).tolist()})
    assert abs(held_out_loss(trainer) - seen) > 1e-4
    trainer.train()
    first, *_ = read_rows(tmp_path / "runs.jsonl")
    assert first["L_ft"] != pytest.approx(seen, abs=1e-6)


@pytest.mark.parametrize("kind", ["DPO", "GRPO"])
def test_preferences_and_prompts_have_no_task_loss(tmp_path: Path, pool: ReplayPool, kind: str) -> None:
    rows = KINDS[kind].extra()["train_dataset"].select(range(4))
    trainer = trainer_of(Case(kind=kind, settings=KINDS[kind].settings), tmp_path, keep(pool), rows=rows)
    trainer.model.eval()
    assert held_out_loss(trainer) is None


class Remembers(TrainerCallback):
    """The parent's own loss, as it is before the replay term."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "replay_kl" in logs:
            self.losses.append(logs["loss"] - 3.0 * logs["replay_kl"])


@pytest.mark.parametrize(("kind", "micros"), [("Trainer", 2), ("SFT", 1), ("SFT", 2), ("DPO", 2), ("GRPO", 2)])
def test_without_labels_it_is_the_last_steps_loss_without_the_replay_term(
    tmp_path: Path, pool: ReplayPool, kind: str, micros: int
) -> None:
    settings = keep(pool, lambda_=3.0, drift_every=1)
    trainer = KINDS[kind].make(tmp_path, settings, gradient_accumulation_steps=micros, learning_rate=0.05)
    heard = Remembers()
    trainer.add_callback(heard)
    trainer.train()
    first, *rows = read_rows(tmp_path / "runs.jsonl")
    assert first["L_ft"] is None
    assert {row["L_ft_on"] for row in rows} == {"train"}
    assert [row["L_ft"] for row in rows] == pytest.approx(heard.losses, rel=2e-3, abs=1e-4)
    assert rows[-1]["KL"] * 3 > 0.01, "the term is too small to be seen"


def masked_at_random(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    """A collator that takes random numbers from all three generators."""
    batch = left_padded(rows)
    drop = torch.rand(batch["labels"].shape) < 0.2 + 0.1 * random.random() + 0.1 * np.random.rand()
    return {**batch, "labels": batch["labels"].masked_fill(drop, -100)}


@pytest.mark.parametrize("case", [Case(given={"data_collator": masked_at_random}), CASES["workers"]])
def test_reading_disturbs_neither_random_numbers_nor_the_trainers_own_evaluation(
    tmp_path: Path, pool: ReplayPool, case: Case
) -> None:
    found = []
    for every in (None, 1):
        settings = {"drift_every": every} if every else {}
        keeping = KeepConfig(lambda_=0.0, replay=pool, drift_rows=2, **settings)
        trainer = trainer_of(case, tmp_path / str(every), keeping, eval_strategy="steps", eval_steps=1, max_steps=2)
        assert (trainer.context is None) == (every is None)
        trainer.train()
        timeless = [
            {key: value for key, value in entry.items() if "runtime" not in key and "per_second" not in key}
            for entry in trainer.state.log_history
        ]
        found.append((timeless, {name: value.tolist() for name, value in trainer.model.state_dict().items()}))
    assert found[0] == found[1]
    losses = [row["L_ft"] for row in read_rows(tmp_path / "1" / "runs.jsonl")]
    assert len(set(losses)) == len(losses) == 3


class OwnLoader(KeepMixin, SFTTrainer):
    """A host with a loader and an evaluation step of its own."""

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        return self.accelerator.prepare(super().get_eval_dataloader(self.eval_dataset.select(range(2))))

    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        loss, *rest = Trainer.prediction_step(self, *args, **kwargs)
        return (loss + 1, *rest)


def test_a_hosts_own_evaluation_is_used(tmp_path: Path, pool: ReplayPool) -> None:
    kind = KINDS["SFT"]
    args = kind.config(**{**SHARED, "output_dir": str(tmp_path)})
    trainer = OwnLoader(model=make_model(), args=args, keep=keep(pool), eval_dataset=task_rows(6), **kind.extra())
    trainer.model.eval()
    loss = trainer.evaluate()["eval_loss"]
    assert loss > 6
    assert held_out_loss(trainer) == pytest.approx(loss, rel=1e-5)
