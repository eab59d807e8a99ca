"""Readings against dense arithmetic, and the shares that are made of them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from keeptune.repair.reading import Ends, Reading, task_losses
from tests.unit.repair.conftest import World


def test_kl_is_that_of_the_dense_predictions(world: World) -> None:
    change, text, model = world.pair.change, world.reader.base_text, world.pair.model
    batch = text.batch(text.choosing)
    rows = batch.tokens_BW
    with torch.no_grad():
        change.place_base()
        base = model(rows[:, :-1]).logits.log_softmax(-1)
        change.place_tuned()
        tuned = model(rows[:, :-1]).logits.log_softmax(-1)
    wanted = (base.exp() * (base - tuned)).sum(-1)[:, -batch.length :].sum(1)
    read = world.reader.kl(text, text.choosing).sum(1)
    assert torch.allclose(read.float(), wanted, rtol=0.05, atol=0.02)  # the text is stored in the dtype of training


def test_each_model_is_at_home_on_its_own_text(world: World) -> None:
    change, reader = world.pair.change, world.reader
    change.place_base()
    base = reader.choosing()
    change.place_tuned()
    tuned = reader.choosing()
    assert base.forgotten.value == pytest.approx(0.0, abs=1e-4) == tuned.unlearned.value
    assert tuned.forgotten.value > 0.005 and base.unlearned.value > 0.005
    ends = Ends(base=base, tuned=tuned)
    assert ends.lost(base).value == pytest.approx(1.0) and ends.lost(tuned).value == 0.0
    assert ends.undone(tuned).value == 0.0 and ends.undone(base).value == pytest.approx(1.0, abs=0.01)


def test_rows_serve_one_purpose_each(world: World) -> None:
    for text in (world.reader.base_text, world.reader.tuned_text):
        parts = [set(part) for part in (text.choosing, text.fresh, text.training)]
        assert sum(map(len, parts)) == len(set.union(*parts)) <= text.pool.rows
        assert len(text.training) == world.settings.tuning_rows
    assert len(world.reader.base_text.fresh) == world.settings.certificate_rows


def test_task_losses_are_the_models_own(world: World) -> None:
    torch.manual_seed(0)
    model, ids = world.pair.model, torch.randint(3, 259, (5, 9))
    rows = [
        {"input_ids": row[: 9 - n], "labels": [-100] * 3 + row[3 : 9 - n], "document": f"{n // 2}"}
        for n, row in enumerate(ids.tolist())
    ]
    found = task_losses(model, rows)  # type: ignore[arg-type]
    assert list(found) == ["0", "1", "2"]
    for name, (total, count) in found.items():
        own = [row for row in rows if row["document"] == name]
        wanted = 0.0
        for row in own:
            with torch.no_grad():
                logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
            wanted += float(functional.cross_entropy(logits, torch.tensor(row["labels"][1:]), reduction="sum"))
        assert total == pytest.approx(wanted, rel=0.02)
        assert count == sum(label != -100 for row in own for label in row["labels"][1:])


def test_with_a_task_learning_is_read_on_it() -> None:
    def reading(loss: float) -> Reading:
        return Reading(
            kl=[0.1] * 3, kl_tokens=2, own=[0.2] * 3, own_tokens=2, task={"a": [loss, 2], "b": [2 * loss, 4]}
        )

    ends = Ends(base=reading(3.0), tuned=reading(1.0))
    assert ends.lost(reading(1.5)).value == pytest.approx(0.25)
    assert ends.lost(reading(0.5)).value == pytest.approx(-0.25)
    loss = reading(1.5).task_loss
    assert loss is not None and loss.value == pytest.approx(0.75)
