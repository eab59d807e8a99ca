"""The meter against a direct computation with torch's and numpy's own functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from keeptune.audit import meter
from keeptune.audit.meter import MEASURES, measure
from tests.conftest import make_model


def make_rows() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(3)
    rows = []
    for document in range(5):
        for length in (9 + document, 21):
            ids = torch.randint(0, 259, (length,), generator=generator).tolist()
            labels = [-100 if position < document else token for position, token in enumerate(ids)]
            rows.append({"input_ids": ids, "labels": labels, "document": f"d{document}"})
    return rows


@pytest.fixture(autouse=True)
def _fp32_and_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "training_dtype", lambda model: torch.float32)
    monkeypatch.setattr(meter, "_BATCH_TOKENS", 60)
    monkeypatch.setattr(meter, "_CHUNK_TOKENS", 7)


@torch.no_grad()
def direct(base: torch.nn.Module, tuned: torch.nn.Module, row: dict[str, Any]) -> dict[str, float]:
    ids = torch.tensor([row["input_ids"]])
    keep = torch.tensor(row["labels"])[1:] != -100
    p, q = (model(input_ids=ids).logits[0, :-1][keep].double() for model in (base, tuned))
    target = torch.tensor(row["labels"])[1:][keep]
    soft = cross_entropy(q, p.softmax(-1), reduction="sum")
    entropy = cross_entropy(p, p.softmax(-1), reduction="sum")
    values = {
        "kl": kl_div(q.log_softmax(-1), p.log_softmax(-1), reduction="sum", log_target=True),
        "soft_ce": soft,
        "entropy": entropy,
        "l_f": cross_entropy(q, p.argmax(-1), reduction="sum"),
        "l_f_base": cross_entropy(p, p.argmax(-1), reduction="sum"),
        "ce": cross_entropy(q, target, reduction="sum"),
        "ce_base": cross_entropy(p, target, reduction="sum"),
        "agreement": (p.argmax(-1) == q.argmax(-1)).double().sum(),
    }
    return {name: float(value) for name, value in values.items()}


def test_every_measure_equals_its_definition() -> None:
    base, tuned = make_model(), make_model(seed=1)
    rows = make_rows()
    drift = measure(base, tuned, rows)
    assert drift.documents == sorted(drift.documents, key=drift.documents.index)
    for position, name in enumerate(drift.documents):
        of_document = [row for row in rows if row["document"] == name]
        assert drift.tokens_D[position] == sum(label != -100 for row in of_document for label in row["labels"][1:])
        sums = [direct(base, tuned, row) for row in of_document]
        for column in MEASURES:
            expected = sum(one[column] for one in sums)
            assert drift.column(column)[position] == pytest.approx(expected, rel=1e-4, abs=1e-4), (name, column)


def test_soft_ce_minus_its_floor_is_the_kl_and_rises_are_differences() -> None:
    drift = measure(make_model(), make_model(seed=1), make_rows())
    np.testing.assert_allclose(drift.column("soft_ce") - drift.column("entropy"), drift.column("kl"), rtol=1e-4)
    summary = drift.summary()["measures"]
    assert summary["l_f_rise"]["value"] == pytest.approx(summary["l_f"]["value"] - summary["l_f_base"]["value"])
    assert summary["ce_change"]["value"] == pytest.approx(summary["ce"]["value"] - summary["ce_base"]["value"])


def test_a_model_does_not_drift_from_itself() -> None:
    drift = measure(make_model(), make_model(), make_rows())
    assert not drift.column("kl").any()
    assert not drift.column("l_f_rise").any()
    assert drift.interval("agreement").value == 1.0


def test_padding_and_batching_do_not_change_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    base, tuned = make_model(), make_model(seed=1)
    batched = measure(base, tuned, make_rows())
    monkeypatch.setattr(meter, "_BATCH_TOKENS", 1)
    alone = measure(base, tuned, make_rows())
    np.testing.assert_allclose(batched.sums_DM, alone.sums_DM, rtol=1e-5, atol=1e-5)


def test_dropout_is_off_while_measuring() -> None:
    base, tuned = make_model().train(), make_model(seed=1).train()
    for model in (base, tuned):
        for module in model.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.5
    assert np.array_equal(measure(base, tuned, make_rows()).sums_DM, measure(base, tuned, make_rows()).sums_DM)


def test_rows_without_targets_are_refused() -> None:
    with pytest.raises(ValueError, match="no row"):
        measure(make_model(), make_model(), [{"input_ids": [1, 2], "labels": [-100, -100], "document": "d"}])
