"""Pretraining on mixtures of texts, and what is read off runs at several λ."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch

from common.grid import settle
from common.small import pretraining
from common.small.corpus import Corpus
from common.small.curves import best_at

CELL = {
    "old": "english", "new": "spanish", "layers": 2, "vocabulary": 512, "length": 64, "pretrain_rate": 3e-3,
    "pretrain_batch": 64, "width": 64, "heads": 4, "seed": 9,
}  # fmt: skip


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the old text are below 1 000, those of the new one above."""

    def corpus(cell: dict[str, Any], which: str) -> Corpus:
        rows = torch.arange(200)[:, None].repeat(1, 5) + (1000 if which == "new" else 0)
        return Corpus(train_RT1=rows, held_out_RT1=rows[:1])

    monkeypatch.setattr(pretraining, "corpus", corpus)


def test_models_without_a_mixture_keep_the_names_that_they_had() -> None:
    names = [pretraining._home(CELL | own).name for own in ({}, {"mixture": 0.0}, {"mixture": 0.125})]
    assert names[0] == names[1] == "english-64x2-seed9-3b0c82529724"
    assert names[2] != names[0]


def test_without_a_mixture_batches_are_those_of_the_old_text(texts: None) -> None:
    cell = CELL | {"pretrain_batch": 8}
    both = zip(pretraining.pretraining_batches(cell, 3), pretraining.old_batches(cell, 3), strict=False)
    for mixed, old in islice(both, 40):
        assert torch.equal(mixed, old)


def test_a_mixture_has_its_share_in_every_batch_and_goes_on_where_it_was(texts: None) -> None:
    cell = CELL | {"pretrain_batch": 8, "mixture": 0.25}
    batches = list(islice(pretraining.pretraining_batches(cell, 0), 150))
    assert all((batch[:, 0] >= 1000).sum() == 2 for batch in batches)
    for done in (1, 33, 34, 100, 149):
        assert torch.equal(next(pretraining.pretraining_batches(cell, done)), batches[done])


def test_a_value_brings_its_settings_along() -> None:
    cell = {"width": 16, "heads": 8, "lambda_": 0.0, "of_width": {"16": {"heads": 1}, "32": {"heads": 2}}}
    assert settle(cell) == {"width": 16, "heads": 1, "lambda_": 0.0}
    assert settle(cell | {"width": 48})["heads"] == 8


def run(seed: int, lambda_: float, end: float, old: float) -> list[dict[str, Any]]:
    """Straight from a new loss of 6 and an old one of 2."""
    own = {"seed": seed, "lambda_": lambda_, "base_old_loss": 2.0}
    return [own | {"step": 0, "new_loss": 6.0, "old_loss": 2.0}, own | {"step": 9, "new_loss": end, "old_loss": old}]


def test_the_best_lambda_is_one_that_every_seed_learns_with() -> None:
    rows = [
        *run(0, 1.0, 4.0, 2.4), *run(1, 1.0, 4.0, 2.6),
        *run(0, 10.0, 4.0, 2.1), *run(1, 10.0, 5.0, 2.1),
        *run(0, 0.1, 4.0, 3.0), *run(1, 0.1, 4.0, 3.0),
    ]  # fmt: skip
    best = best_at(rows, 4.5, [0.1, 1.0, 10.0])
    assert best.lambda_ == 1.0
    assert best.by_seed == pytest.approx({0: 0.3, 1: 0.45})
    assert best_at(rows, 5.5, [0.1, 1.0, 10.0]).lambda_ == 10.0
    nobody = best_at(rows, 3.0, [0.1, 1.0, 10.0])
    assert (nobody.lambda_, nobody.by_seed, nobody.interval) == (None, {}, None)
