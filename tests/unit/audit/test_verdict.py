"""The noise floor that drift is held against, and predictions that are no numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from keeptune.audit.meter import MEASURES, Drift, measure
from keeptune.audit.verdict import (
    FLOOR_DOCUMENTS,
    FLOOR_MEASURES,
    bound_of,
    floors_of,
    how,
    noise_floor,
    other_states,
    part,
    require_finite,
)
from keeptune.errors import Diverged
from keeptune.stats import Interval
from tests.helpers.models import make_model


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_readings_that_are_no_numbers_are_refused(value: float) -> None:
    sums_DM = np.ones((3, len(MEASURES)))
    drift = Drift(sums_DM=sums_DM, tokens_D=np.ones(3), documents=["a", "b", "c"])
    require_finite(drift, "wiki")
    sums_DM[1, 2] = value
    with pytest.raises(Diverged, match="1 of 3 documents of wiki"):
        require_finite(drift, "wiki")


def make_rows(documents: int = 12, windows: int = 2) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(5)
    rows = []
    for document in range(documents):
        for window in range(windows):
            ids = torch.randint(0, 259, (12 + document + window,), generator=generator).tolist()
            rows.append({"input_ids": ids, "labels": [-100, *ids[1:]], "document": f"d{document}"})
    return rows


def test_one_window_of_eight_documents_evenly_spaced() -> None:
    rows = make_rows(documents=16)
    rows[0]["labels"] = [-100] * len(rows[0]["labels"])
    read = part(rows)
    assert [row["document"] for row in read] == [f"d{index}" for index in range(0, 16, 2)]
    assert len(read) == FLOOR_DOCUMENTS
    assert read[0] is rows[1]
    assert part(make_rows(documents=3, windows=1)) == make_rows(documents=3, windows=1)
    assert part([]) == []


def test_rows_alone_have_the_states_of_the_batch() -> None:
    rows = make_rows(documents=5, windows=1)
    rows[1]["labels"][4:] = [-100] * (len(rows[1]["labels"]) - 4)
    base, tuned = make_model(), make_model(seed=1)
    batched = measure(base, tuned, rows, dtype=torch.float32)
    alone = measure(base, tuned, rows, dtype=torch.float32, tuned_states=other_states)
    np.testing.assert_allclose(alone.sums_DM, batched.sums_DM, rtol=1e-4, atol=1e-5)
    assert np.array_equal(alone.tokens_D, batched.tokens_D)


def test_bfloat16_has_a_floor() -> None:
    base = make_model()
    floors = noise_floor(base, make_rows(), dtype=torch.bfloat16)
    assert tuple(floors) == FLOOR_MEASURES
    assert 1e-5 < bound_of("kl", floors["kl"]) < 1e-2
    assert "float32 against bfloat16" in how(base, torch.bfloat16)
    assert {of.documents for of in floors.values()} == {FLOOR_DOCUMENTS}


def test_float32_has_next_to_none() -> None:
    base = make_model()
    assert 0 <= bound_of("kl", noise_floor(base, make_rows(), dtype=torch.float32)["kl"]) < 1e-6
    assert "against bfloat16" not in how(base, torch.float32)


def test_floors_are_those_of_the_noise_floor() -> None:
    base, rows = make_model(), make_rows()
    floors = noise_floor(base, rows)
    assert floors_of(base, rows, "Floors") == {name: bound_of(name, of) for name, of in floors.items()}


def test_the_floor_is_the_end_farthest_from_no_drift() -> None:
    assert bound_of("ce_change", Interval(value=0.1, low=-0.3, high=0.2, documents=8)) == 0.3
    assert bound_of("agreement", Interval(value=0.99, low=0.97, high=1.0, documents=8)) == pytest.approx(0.03)
    assert bound_of("kl", Interval(value=0.1, low=None, high=None, documents=1)) == 0.1


def test_one_document_has_its_value_as_the_floor() -> None:
    reading = noise_floor(make_model(), make_rows(documents=1), dtype=torch.bfloat16)["kl"]
    assert reading.low is None
    assert bound_of("kl", reading) == reading.value > 0
