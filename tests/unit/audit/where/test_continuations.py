"""Continuations: which beginnings, what both models write after them, and that it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from keeptune.audit.where import passages as module
from keeptune.audit.where.passages import beginnings, continuations
from keeptune.workspace import Steps
from tests.helpers.models import make_model, make_tokenizer


def make_rows(documents: int) -> list[dict[str, Any]]:
    windows = [(document, window) for document in range(documents) for window in range(2)]
    ids = [[0, 10 + document, 40 + window, *range(60, 90)] for document, window in windows]
    return [
        {"input_ids": tokens, "labels": tokens, "document": f"d{document}"}
        for tokens, (document, _) in zip(ids, windows, strict=True)
    ]


def test_beginnings_are_spread_over_texts_and_documents() -> None:
    found = beginnings({"one": make_rows(30), "two": make_rows(2), "three": make_rows(5)})
    places = [(start["text"], start["document"]) for start in found]
    assert places == [("one", "d0"), ("one", "d15"), ("two", "d0"), ("two", "d1"), ("three", "d0"), ("three", "d2")]
    assert all(start["input_ids"][2] == 40 and len(start["input_ids"]) == 24 for start in found)
    counts = [start["text"] for start in beginnings({name: make_rows(9) for name in "abcd"})]
    assert counts == ["a", "a", "b", "b", "c", "d"]
    assert len(beginnings({"one": make_rows(2)})) == 2


def test_what_all_documents_start_with_is_followed_by_their_own_words() -> None:
    ids = [*[7] * 40, *range(100, 150)]
    row = {"input_ids": ids, "labels": [-100] * 40 + ids[40:], "document": "chat"}
    assert beginnings({"chats": [row]})[0]["input_ids"] == ids[: 39 + 24]


@torch.no_grad()
def greedy(model: Any, ids: list[int]) -> list[int]:
    ids = list(ids)
    for _ in range(module.NEW_TOKENS):
        following = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if following == 2:
            break
        ids.append(following)
    return ids


def test_both_models_continue_greedily_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, tuned, tokenizer = make_model(), make_model(seed=1), make_tokenizer()
    rows = make_rows(4)
    steps = Steps(tmp_path, models="these")
    found = continuations(base, tuned, tokenizer, {"mine": rows}, steps)
    assert [entry["document"] for entry in found] == ["d0", "d1", "d2", "d3"]
    for entry, start in zip(found, beginnings({"mine": rows}), strict=True):
        prompt = start["input_ids"]
        assert entry["text"] == "mine"
        assert entry["prompt"] == tokenizer.decode(prompt)
        for name, model in (("base", base), ("tuned", tuned)):
            assert entry[name] == tokenizer.decode(greedy(model, prompt)[len(prompt) :])
    assert any(entry["base"] != entry["tuned"] for entry in found)

    def unwanted(*arguments: Any) -> list[list[int]]:
        raise AssertionError("written a second time")

    monkeypatch.setattr(module, "answer", unwanted)
    assert continuations(base, tuned, tokenizer, {"mine": rows}, steps) == found
    with pytest.raises(AssertionError, match="second time"):
        continuations(base, tuned, tokenizer, {"mine": make_rows(3)}, steps)
