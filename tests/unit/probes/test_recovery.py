"""The recovery probe: both models tuned alike on one half, read on the other, and a verdict by the rule."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from keeptune.audit.run import Loaded
from keeptune.audit.terminal import print_recovery
from keeptune.audit.verdict import NO_EVIDENCE
from keeptune.errors import ConfigError
from keeptune.probes.recovery import LOST, NOTHING, SPURIOUS, UNDECIDED, halves, recovery_probe, tune_briefly, verdict
from keeptune.workspace import Steps
from tests.helpers.models import make_model, make_tokenizer


def make_rows(documents: int = 24) -> list[dict[str, Any]]:
    tokenizer = make_tokenizer()
    rows = []
    for number in range(documents):
        ids = tokenizer(f"Text {number} is about the number {number}. " * 2)["input_ids"]
        rows.append({"input_ids": ids, "labels": ids, "document": f"text {number}"})
    return rows


def make_loaded(base: LlamaForCausalLM, tuned: LlamaForCausalLM, folder: Path) -> Loaded:
    steps = Steps(folder, base="base", tuned="tuned")
    rows = {"mine": make_rows()}
    return Loaded(
        base=base, tuned=tuned, tokenizer=make_tokenizer(), rows=rows, sources={}, vocabulary=None, steps=steps
    )


def mean_ce(model: LlamaForCausalLM, rows: list[dict[str, Any]]) -> float:
    """By the library's own loss."""
    total = tokens = 0.0
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    return total / tokens


def test_halves_split_documents_whole() -> None:
    rows = make_rows(5) + make_rows(5)
    tuning, held_out = halves(rows, seed=0)
    sides = [{row["document"] for row in side} for side in (tuning, held_out)]
    assert not sides[0] & sides[1]
    assert (len(sides[0]), len(sides[1]), len(tuning) + len(held_out)) == (2, 3, 10)
    assert halves(rows[::-1], seed=0)[0] == tuning[::-1]
    with pytest.raises(ConfigError, match="two halves"):
        halves(make_rows(1), seed=0)


def test_a_model_against_itself_has_nothing_to_recover(tmp_path: Path) -> None:
    model = make_model()
    found = recovery_probe(make_loaded(model, copy.deepcopy(model), tmp_path), "mine", seed=0)
    assert found["verdict"] == NOTHING
    assert found["recovered_share"] is None
    # Tuned alike, they stay alike.
    assert found["measures"]["gap_after"]["value"] == 0.0


def test_a_gap_is_read_before_and_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = make_model()
    for _ in range(8):
        tune_briefly(base, make_rows(40)[24:], seed=1)
    tuned = make_model()
    held_out = halves(make_rows(), seed=0)[1]
    before = mean_ce(tuned, held_out) - mean_ce(base, held_out)
    loaded = make_loaded(base, tuned, tmp_path)
    found = recovery_probe(loaded, "mine", seed=0)
    measures = found["measures"]
    assert measures["gap_before"]["value"] == pytest.approx(before, rel=0.02)
    after = mean_ce(tuned, held_out) - mean_ce(base, held_out)
    assert measures["gap_after"]["value"] == pytest.approx(after, rel=0.02)
    assert measures["ce_tuned_after"]["value"] < measures["ce_tuned_before"]["value"]
    assert found["recovered_share"]["value"] == pytest.approx(1 - after / before, abs=0.03)
    assert not base.training
    print_recovery({"recovery": found})
    shown = capsys.readouterr().out
    assert f"{measures['gap_before']['value']:.4f}" in shown
    assert f"{found['verdict'].capitalize()}: {found['meaning']}." in shown
    assert recovery_probe(loaded, "mine", seed=0) == found, "kept, though the models have changed"


@pytest.mark.parametrize(
    ("gap", "share", "expected"),
    [
        ({"low": 0.1, "documents": 20}, {"low": 0.6, "high": 0.9}, SPURIOUS),
        ({"low": 0.1, "documents": 20}, {"low": 0.1, "high": 0.4}, LOST),
        ({"low": 0.1, "documents": 20}, {"low": 0.4, "high": 0.6}, UNDECIDED),
        ({"low": -0.1, "documents": 20}, None, NOTHING),
        ({"low": 0.1, "documents": 9}, {"low": 0.6, "high": 0.9}, NO_EVIDENCE),
        ({"low": None, "documents": 1}, None, NO_EVIDENCE),
    ],
)
def test_the_rule(gap: dict[str, Any], share: dict[str, Any] | None, expected: str) -> None:
    assert verdict(gap, share) == expected
