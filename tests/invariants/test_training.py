"""What must be equal, is: λ = 0 and SFTTrainer, plain loop and trainer, cached and live teacher, resumed runs."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from torch import nn
from transformers import LlamaForCausalLM
from trl import SFTTrainer

from keeptune.models.modeling import head_of, hidden_states
from keeptune.objective import forward_kl
from keeptune.replay.pool import ReplayPool
from keeptune.train.config import KeepConfig
from keeptune.train.loop import keep_tuning
from keeptune.train.readings import read_rows
from keeptune.train.trainers import KeepSFTTrainer
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.training import config, in_trainer_order, keep, largest_gap, task_rows, trained

OBJECTIVES = ("kl", "reverse_kl", "jensen_shannon", "ntp")


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
def test_lambda_zero_is_sft_trainer_bit_for_bit(tmp_path: Path, pool: ReplayPool, lora: bool, bf16: bool) -> None:
    peft = LoraConfig(r=4, target_modules="all-linear", use_rslora=True) if lora else None
    shared = {"train_dataset": task_rows(), "processing_class": make_tokenizer(), "peft_config": peft}
    plain = SFTTrainer(model=make_model(), args=config(tmp_path / "plain", bf16=bf16), **shared)
    ours = KeepSFTTrainer(
        model=make_model(), args=config(tmp_path / "ours", bf16=bf16), keep=keep(pool, lambda_=0.0), **shared
    )
    plain_weights, our_weights = trained(plain), trained(ours)
    assert all(torch.equal(plain_weights[name], our_weights[name]) for name in plain_weights)
    assert [e["loss"] for e in plain.state.log_history if "loss" in e] == [
        e["loss"] for e in ours.state.log_history if "loss" in e
    ]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_plain_loop_equals_trainer(tmp_path: Path, pool: ReplayPool, objective: str, accumulate: int) -> None:
    settings = keep(pool, objective=objective, lambda_=2.0)
    args = config(
        tmp_path / "run", gradient_accumulation_steps=accumulate, max_steps=3, lr_scheduler_type="constant",
        train_sampling_strategy="sequential",
    )  # fmt: skip
    trainer = KeepSFTTrainer(
        model=make_model(), args=args, keep=settings, train_dataset=task_rows(), processing_class=make_tokenizer()
    )
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.0, eps=args.adam_epsilon)
    batches = in_trainer_order(trainer)
    readings = list(
        keep_tuning(
            model, batches, pool, optimizer=optimizer, steps=3, keep=settings, accumulate=accumulate, seed=args.seed
        )
    )
    gap = largest_gap(trained(trainer), model.state_dict())
    assert gap <= 1e-6
    logged = [entry[f"replay_{objective}"] for entry in trainer.state.log_history if f"replay_{objective}" in entry]
    assert logged == pytest.approx([reading.replay_loss for reading in readings], abs=1e-5)


def test_readings_are_of_forward_kl_whatever_the_objective(tmp_path: Path, pool: ReplayPool) -> None:
    weights = []
    for objective in OBJECTIVES:
        trainer = KeepSFTTrainer(
            model=make_model(), args=config(tmp_path / objective), keep=keep(pool, objective=objective),
            train_dataset=task_rows(), processing_class=make_tokenizer(),
        )  # fmt: skip
        weights.append(trained(trainer))
        last = read_rows(tmp_path / objective / "runs.jsonl")[-1]
        held_out = pool.batch(torch.arange(16, 20)).inputs_BP
        tuned_NV, base_NV = (m.eval()(input_ids=held_out).logits.flatten(0, 1) for m in (trainer.model, make_model()))
        assert last["KL"] == pytest.approx(forward_kl(tuned_NV, base_NV).item() / held_out.numel(), rel=1e-4)
        assert last["objective"] == objective
    assert min(largest_gap(one, other) for one, other in combinations(weights, 2)) > 1e-4


def test_the_replay_term_changes_the_result(tmp_path: Path, pool: ReplayPool) -> None:
    runs = {}
    for lambda_ in (0.0, 1.0):
        runs[lambda_] = trained(
            KeepSFTTrainer(
                model=make_model(),
                args=config(tmp_path / str(lambda_)),
                keep=keep(pool, lambda_=lambda_),
                train_dataset=task_rows(),
                processing_class=make_tokenizer(),
            )
        )
    assert largest_gap(runs[0.0], runs[1.0]) > 1e-4


def test_cached_teacher_equals_live_teacher(pool: ReplayPool) -> None:
    base, tuned = make_model(), make_model(seed=1)
    batch = pool.batch(torch.arange(5))
    live_head, live_BTD = head_of(base), hidden_states(base, batch.inputs_BP)
    torch.testing.assert_close(batch.hidden_BTD, live_BTD, rtol=0, atol=1e-6)
    student_NV = head_of(tuned).logits(hidden_states(tuned, batch.inputs_BP).flatten(0, 1))
    cached = forward_kl(student_NV, live_head.logits(batch.hidden_BTD.flatten(0, 1)))
    live = forward_kl(student_NV, live_head.logits(live_BTD.flatten(0, 1)))
    own_logits = forward_kl(student_NV, base(input_ids=batch.inputs_BP).logits.flatten(0, 1))
    torch.testing.assert_close(cached, live, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(cached, own_logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lora", [False, True])
def test_accumulating_eight_rows_equals_one_batch_of_eight(tmp_path: Path, pool: ReplayPool, lora: bool) -> None:
    peft = LoraConfig(r=4, target_modules="all-linear") if lora else None
    runs = []
    for accumulate in (1, 8):
        args = config(
            tmp_path / str(accumulate), per_device_train_batch_size=8 // accumulate, max_steps=4,
            gradient_accumulation_steps=accumulate, train_sampling_strategy="sequential",
        )  # fmt: skip
        runs.append(
            trained(
                KeepSFTTrainer(
                    model=make_model(), args=args, keep=keep(pool, replay_rows=8 // accumulate),
                    train_dataset=task_rows(), processing_class=make_tokenizer(), peft_config=peft,
                )
            )
        )  # fmt: skip
    assert largest_gap(*runs) <= 2e-6


class TakesNoCount(LlamaForCausalLM):
    """As Gemma 3 and other multimodal classes: the Trainer divides their loss by the micro-batches itself."""

    accepts_loss_kwargs = False


def test_accumulating_is_the_same_where_the_model_takes_no_count_of_tokens(tmp_path: Path, pool: ReplayPool) -> None:
    runs = []
    for accumulate in (1, 8):
        model = make_model()
        model.__class__ = TakesNoCount
        args = config(
            tmp_path / str(accumulate), per_device_train_batch_size=8 // accumulate, max_steps=6,
            gradient_accumulation_steps=accumulate, train_sampling_strategy="sequential",
        )  # fmt: skip
        runs.append(
            trained(
                KeepSFTTrainer(
                    model=model, args=args, keep=keep(pool, replay_rows=8 // accumulate),
                    train_dataset=task_rows(), processing_class=make_tokenizer(),
                )
            )
        )  # fmt: skip
    assert largest_gap(*runs) <= 2e-6


def test_the_meter_takes_no_random_numbers_from_training(tmp_path: Path, pool: ReplayPool) -> None:
    shared = {
        "train_dataset": task_rows(), "eval_dataset": task_rows(8), "processing_class": make_tokenizer(),
        "peft_config": LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.3),
    }  # fmt: skip
    plain = trained(SFTTrainer(model=make_model(), args=config(tmp_path / "plain"), **shared))
    settings = keep(pool, lambda_=0.0, drift_every=1)
    ours = trained(KeepSFTTrainer(model=make_model(), args=config(tmp_path / "ours"), keep=settings, **shared))
    assert largest_gap(plain, ours) == 0.0


def test_resumed_run_equals_uninterrupted_run(tmp_path: Path, pool: ReplayPool) -> None:
    def trainer(folder: str, **settings: Any) -> KeepSFTTrainer:
        return KeepSFTTrainer(
            model=make_model(), args=config(tmp_path / folder, **settings), keep=keep(pool),
            train_dataset=task_rows(), eval_dataset=task_rows(8), processing_class=make_tokenizer(),
        )  # fmt: skip

    whole = trained(trainer("whole"))
    saving = {"save_strategy": "steps", "save_steps": 3}
    trainer("parts", **saving).train()
    rest = trainer("parts", **saving)
    rest.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-3"))
    assert largest_gap(whole, dict(rest.model.state_dict())) == 0.0
    rows = {folder: read_rows(tmp_path / folder / "runs.jsonl") for folder in ("whole", "parts")}
    assert [row["step"] for row in rows["parts"]] == [0, 1, 2, 3, 6]
    for one, other in zip(rows["whole"], rows["parts"], strict=True):
        same = ("KL", "L_ft", "L_f", "P", "task_tokens")
        assert [one[key] for key in same] == [other[key] for key in same]


def test_first_reading_is_the_base_itself(tmp_path: Path, pool: ReplayPool) -> None:
    trainer = KeepSFTTrainer(
        model=make_model(), args=config(tmp_path / "run"), keep=keep(pool), train_dataset=task_rows(),
        eval_dataset=task_rows(8), processing_class=make_tokenizer(),
    )  # fmt: skip
    trainer.train()
    first, *_, last = read_rows(tmp_path / "run" / "runs.jsonl")
    assert first["step"] == 0
    assert abs(first["KL"]) < 1e-9
    assert first["L_f"] == pytest.approx(first["L_f_base"], abs=1e-7)
    assert last["KL"] > 1e-4
    assert last["P"] == sum(p.numel() for p in make_model().parameters())


def test_tied_head_of_the_teacher_stays_the_bases(tmp_path: Path, pool: ReplayPool) -> None:
    trainer = KeepSFTTrainer(
        model=make_model(), args=config(tmp_path / "run"), keep=keep(pool), train_dataset=task_rows(),
        processing_class=make_tokenizer(),
    )  # fmt: skip
    trainer.train()
    assert isinstance(trainer.model, nn.Module)
    assert torch.equal(trainer.context.base_head.weight_VD, make_model().lm_head.weight)
    assert not torch.equal(trainer.model.lm_head.weight, make_model().lm_head.weight)


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": f"row {number} of plain text"} for number in range(12)],
        [{"prompt": f"{number} + 1 =", "completion": f" {number + 1}"} for number in range(12)],
        [{"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}] * 12,
    ],
)
@pytest.mark.parametrize("lora", [False, True])
def test_drop_in_for_a_trl_script_writes_its_own_pool(tmp_path: Path, rows: list[Any], lora: bool) -> None:
    trainer = KeepSFTTrainer(
        model=make_model(),
        args=config(tmp_path / "run", max_steps=2, max_length=64),
        keep=KeepConfig(replay_tokens=160, replay_length=16, drift_rows=2),
        train_dataset=Dataset.from_list(rows),
        processing_class=make_tokenizer(),
        peft_config=LoraConfig(r=4, target_modules="all-linear") if lora else None,
    )
    trainer.train()
    pool = ReplayPool.open(next((tmp_path / "run").glob("replay-*")))
    assert (pool.rows, trainer.context.train_rows) == (12, 10)
    pool.check_base(trainer.context.base)
    first, *_, last = read_rows(tmp_path / "run" / "runs.jsonl")
    assert abs(first["KL"]) < 1e-9
    assert last["L_ft_on"] == "train"


def test_gradient_checkpointing_changes_nothing(tmp_path: Path, pool: ReplayPool) -> None:
    runs = [
        trained(
            KeepSFTTrainer(
                model=make_model(),
                args=config(tmp_path / str(checkpointing), gradient_checkpointing=checkpointing, max_steps=3),
                keep=keep(pool),
                train_dataset=task_rows(),
                processing_class=make_tokenizer(),
            )
        )
        for checkpointing in (False, True)
    ]
    assert largest_gap(*runs) <= 1e-6


def test_the_logged_replay_loss_is_a_mean_in_a_short_last_window_too(tmp_path: Path, pool: ReplayPool) -> None:
    args = config(
        tmp_path / "run", per_device_train_batch_size=2, gradient_accumulation_steps=4, max_steps=2,
        learning_rate=1e-12, lr_scheduler_type="constant",
    )  # fmt: skip
    settings = keep(pool, objective="ntp", replay_rows=16)
    trainer = KeepSFTTrainer(
        model=make_model(), args=args, keep=settings, train_dataset=task_rows(10), processing_class=make_tokenizer()
    )
    trainer.train()
    whole, short = (entry["replay_ntp"] for entry in trainer.state.log_history if "replay_ntp" in entry)
    assert short == pytest.approx(whole, rel=0.01)


@pytest.mark.parametrize(("micros", "steps"), [(6, 3), (5, 3), (2, 1)])
def test_the_plain_loop_ends_when_its_batches_do(pool: ReplayPool, micros: int, steps: int) -> None:
    model, rows = make_model(), torch.tensor(task_rows(4)["input_ids"])
    batches = [{"input_ids": rows, "labels": rows}] * micros
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    readings = list(keep_tuning(model, batches, pool, optimizer=optimizer, steps=9, keep=keep(pool), accumulate=2))
    assert [reading.step for reading in readings] == list(range(1, steps + 1))
    assert readings[-1].task_loss < readings[0].task_loss or steps == 1
