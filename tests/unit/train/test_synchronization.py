"""Forward and backward of a training step never wait for the device: nothing asks for a value, a count or a copy.

On a GPU each of these stops the host until all work in the queue is done. Tensors on torch's meta device have no
values, so that whatever asks for one raises. Copies to the device are looked at in tests/gpu.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import masking_utils

from keeptune.models.modeling import head_of
from keeptune.objective import fused
from keeptune.replay.batch import ReplayBatch, opened_batch
from keeptune.replay.pool import ReplayPool
from keeptune.replay.teachers import AdapterOff, CachedHidden, CachedTopK, LiveCopy
from keeptune.train.replay_term import replay_sum
from tests.helpers.models import make_model
from tests.helpers.trainers import KINDS
from tests.helpers.training import keep, task_rows

META = torch.device("meta")


@pytest.fixture(autouse=True)
def meta_as_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU gets, on a device that torch knows no autocast of and does not compile for."""
    monkeypatch.setattr(fused, "_compiled_block_step", lambda: fused.block_step)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *device: False)
    # transformers asks once a forward pass, its own and ours, whether rows without a mask are packed: they are not.
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda position_ids: None)


def batch(openings: tuple[int, ...]) -> ReplayBatch:
    """Rows of 8 targets after openings of these lengths, with all that a pool can store of them."""
    generator = torch.Generator().manual_seed(0)
    rows, length = len(openings), 8
    tokens_BW = torch.randint(3, 259, (rows, max(openings) + length), generator=generator)
    outputs = {
        "hidden": torch.randn(rows, length, 32, generator=generator),
        "top_ids": torch.arange(6, dtype=torch.int32).expand(rows, length, 6).contiguous(),
        "top_log_probs": torch.full((rows, length, 7), -2.0),
    }
    return opened_batch(tokens_BW, torch.tensor(openings), length, outputs)


def frozen_head(model: Any) -> Any:
    head = head_of(model).detached()
    return replace(head, weight_VD=head.weight_VD.to(META))


TEACHERS: dict[str, Callable[[Any], Any]] = {
    "hidden": lambda model: CachedHidden(frozen_head(model)),
    "topk": lambda model: CachedTopK(),
    "live": lambda model: LiveCopy(model, torch.float32),
    "adapter": lambda model: AdapterOff(frozen_head(model)),
    "none": lambda model: None,
}


@pytest.mark.parametrize("openings", [(1, 1), (2, 5)])
@pytest.mark.parametrize("name", TEACHERS)
def test_the_term_asks_for_no_value(name: str, openings: tuple[int, ...]) -> None:
    model: Any = make_model().train()
    head_of(model)  # looks at the model once, before training
    if name == "adapter":
        model = get_peft_model(model, LoraConfig(target_modules="all-linear", r=2))
    teacher = TEACHERS[name](model)
    model = model.to(META)
    if name == "live":
        head_of(teacher.copy)
        teacher.copy = teacher.copy.to(META)
    for objective in ["ntp"] if teacher is None else ["kl", "reverse_kl", "jensen_shannon"]:
        loss = replay_sum(model, batch(openings).to(META), teacher, objective)
        (loss * 0.5).backward()
        assert loss.is_meta
    assert any(parameter.grad is not None for parameter in model.parameters())


def test_a_micro_batch_of_the_trainer_asks_for_no_value(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pool: ReplayPool
) -> None:
    trainer = KINDS["Trainer"].make(tmp_path / "run", keep(pool), gradient_accumulation_steps=2)
    monkeypatch.setattr(trainer, "_prepare_inputs", lambda inputs: inputs)  # to the trainer's device, the CPU
    context = trainer.context
    context.host = replace(context.host, device=META)
    context.teacher = CachedHidden(frozen_head(trainer.model))
    model = trainer.model.to(META).train()
    rows = [{name: torch.tensor(task_rows(4)[name]).to(META) for name in ("input_ids", "labels")} for _ in range(2)]
    micros, items = trainer.get_batch_samples(iter(rows), 2, META)
    for inputs in micros:
        assert trainer.training_step(model, inputs, items).is_meta
    assert len(context.window.replay) == len(context.unchecked) == 2
    with pytest.raises(RuntimeError, match="meta"):
        trainer.callback_handler.on_pre_optimizer_step(trainer.args, trainer.state, trainer.control)


@pytest.mark.parametrize(
    "asks",
    [
        Tensor.item, Tensor.cpu, Tensor.tolist, Tensor.nonzero, Tensor.numpy, bool, float,
        lambda values: values[values > 0], lambda values: torch.equal(values, values + 1),
    ],
)  # fmt: skip
def test_a_value_that_is_asked_for_raises(asks: Callable[[Tensor], object]) -> None:
    with pytest.raises((RuntimeError, NotImplementedError, TypeError)):
        asks(torch.ones((), device=META))
