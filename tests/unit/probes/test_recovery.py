"""The recovery probe: both models tuned alike on one half, read on the other, and a verdict by the rule."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from keeptune.audit.meter import Drift
from keeptune.audit.section import Loaded
from keeptune.audit.settings import AuditSettings
from keeptune.errors import ConfigError
from keeptune.objective.drift import MEASURES
from keeptune.probes.recovery import Recovery, halves, recovery_findings, tune_briefly
from keeptune.report.document import SectionRecord, Status
from keeptune.report.finding import Finding
from keeptune.report.terminal import print_views
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
        base=base, second=tuned, tokenizer=make_tokenizer(), rows=rows, sources={}, vocabulary=None, steps=steps
    )


def probe(loaded: Loaded) -> dict[str, Finding]:
    settings = AuditSettings(base="b", tuned=("t",), text=["mine=a.txt"], recovery="mine", seed=0)
    return {one.measure: one for one in Recovery(settings).measure(loaded).findings}


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
    found = probe(make_loaded(model, copy.deepcopy(model), tmp_path))
    assert found["gap_before"].words == "nothing to recover"
    assert found["gap_before"].headline
    assert "recovered_share" not in found
    # Tuned alike, they stay alike.
    assert found["gap_after"].value == 0.0


def test_a_gap_is_read_before_and_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = make_model()
    for _ in range(8):
        tune_briefly(base, make_rows(40)[24:], seed=1)
    tuned = make_model()
    held_out = halves(make_rows(), seed=0)[1]
    before = mean_ce(tuned, held_out) - mean_ce(base, held_out)
    loaded = make_loaded(base, tuned, tmp_path)
    found = probe(loaded)
    assert found["gap_before"].value == pytest.approx(before, rel=0.02)
    after = mean_ce(tuned, held_out) - mean_ce(base, held_out)
    assert found["gap_after"].value == pytest.approx(after, rel=0.02)
    levels = [found[name].tuned for name in ("gap_before", "gap_after")]
    assert levels[0] is not None
    assert levels[1] is not None
    assert levels[1].value < levels[0].value
    share = found["recovered_share"]
    assert share.value == pytest.approx(1 - after / before, abs=0.03)
    assert not base.training
    record = SectionRecord(name="recovery", title="Recovery", status=Status.MEASURED)
    print_views([Recovery.view(record, list(found.values()))])
    shown = capsys.readouterr().out
    assert f"{share.value:.1%}".replace("%", "\u202f%") in shown
    assert share.words in " ".join(shown.split())
    assert probe(loaded) == found, "kept, though the models have changed"


def drift(gap: float, documents: int = 20, spread: float = 0.01) -> Drift:
    """A gap of loss that is `gap` in every document, but for the spread."""
    sums_DM = np.zeros((documents, len(MEASURES)))
    sums_DM[:, MEASURES.index("ce")] = 2.0 + gap + spread * np.linspace(-1, 1, documents)
    sums_DM[:, MEASURES.index("ce_base")] = 2.0
    return Drift(sums_DM=sums_DM, tokens_D=np.ones(documents), documents=[str(at) for at in range(documents)])


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (drift(0.5), drift(0.1), "mostly spurious"),
        (drift(0.5), drift(0.4), "mostly lost"),
        (drift(0.5), drift(0.25, spread=0.2), "undecided"),
        (drift(0.0), drift(0.0), "nothing to recover"),
        (drift(0.5, 9), drift(0.1, 9), "not enough evidence"),
    ],
)
def test_the_rule(before: Drift, after: Drift, words: str) -> None:
    (headline,) = [one for one in recovery_findings("mine", before, after) if one.headline]
    assert headline.words == words
