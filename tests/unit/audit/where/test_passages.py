"""The worst passages, and continuations: which beginnings, what both models write after them, and that it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from keeptune.audit.where import passages as module
from keeptune.audit.where.passages import (
    OF_ONE_DOCUMENT,
    PASSAGES,
    Passage,
    WorstPassages,
    beginnings,
    continuations,
    pieces,
    worst,
)
from keeptune.workspace import Steps
from tests.helpers.models import make_model, make_tokenizer

LENGTH = 32
Window = tuple[str, list[int], np.ndarray, np.ndarray]


def draw_windows(documents: int, windows: int, seed: int = 0) -> list[Window]:
    random = np.random.default_rng(seed)
    drawn = []
    for document in range(documents):
        for _ in range(windows):
            length = int(random.integers(40, 120))
            kept = np.sort(random.choice(np.arange(1, length), size=length - 2, replace=False))
            drawn.append(
                (f"d{document}", random.integers(3, 250, length).tolist(), kept, random.random(length - 2) ** 4)
            )
    return drawn


def collect(windows: list[Window]) -> list[Passage]:
    passages = WorstPassages()
    for window in windows:
        passages.add(*window)
    return passages.decoded(make_tokenizer())


def search(windows: list[Window]) -> list[tuple[str, float]]:
    """Document and mean of the worst passages: all stretches of all windows, the worst first, taken if allowed."""
    stretches = []
    for number, (document, _, positions, kl) in enumerate(windows):
        for start in range(len(kl) - LENGTH + 1):
            if list(positions[start : start + LENGTH]) == list(range(positions[start], positions[start] + LENGTH)):
                stretches.append((sum(kl[start : start + LENGTH]) / LENGTH, document, number, start))
    taken: list[tuple[float, str, int, int]] = []
    for stretch in sorted(stretches, reverse=True):
        overlaps = any(other[2] == stretch[2] and abs(other[3] - stretch[3]) < LENGTH for other in taken)
        if not overlaps and sum(other[1] == stretch[1] for other in taken) < 2 and len(taken) < 20:
            taken.append(stretch)
    return [(document, mean) for mean, document, _, _ in taken]


@pytest.mark.parametrize(("documents", "windows"), [(30, 3), (4, 2), (1, 6)])
def test_the_worst_passages_are_those_of_an_exhaustive_search(documents: int, windows: int) -> None:
    drawn = draw_windows(documents, windows)
    found, expected = collect(drawn), search(drawn)
    assert [passage.document for passage in found] == [document for document, _ in expected]
    assert [passage.mean_kl for passage in found] == pytest.approx([mean for _, mean in expected])
    assert len(found) == min(PASSAGES, OF_ONE_DOCUMENT * documents)


def test_a_passage_says_which_tokens_stand_there_and_what_before() -> None:
    tokenizer = make_tokenizer()
    ids = tokenizer("".join(chr(33 + number) for number in range(90)), add_special_tokens=False)["input_ids"]
    kl_N = np.zeros(89)
    kl_N[40:72] = np.linspace(1, 2, 32)
    passages = WorstPassages()
    passages.add("d", ids, np.arange(1, 90), kl_N)
    first = passages.decoded(tokenizer)[0]
    # The target at place 40 is the token at position 41.
    assert first.tokens == [chr(33 + position) for position in range(41, 73)]
    assert first.context == "".join(chr(33 + position) for position in range(29, 41))
    assert first.kl == kl_N[40:72].tolist()
    assert first.mean_kl == pytest.approx(1.5)


def test_no_passage_spans_a_gap_or_a_short_window() -> None:
    ids = list(range(3, 70))
    with_gap = np.concatenate([np.arange(1, 32), np.arange(33, 64)])
    assert collect([("gap", ids, with_gap, np.ones(62)), ("short", ids, np.arange(1, 32), np.ones(31))]) == []
    assert len(collect([("long enough", ids, np.arange(1, 33), np.ones(32))])) == 1


def test_of_copies_the_worst_is_kept() -> None:
    ids = np.random.default_rng(0).integers(3, 250, 33).tolist()
    shifted = [*np.random.default_rng(1).integers(3, 250, 10).tolist(), *ids[:23]]
    windows = [
        (name, text, np.arange(1, 33), np.full(32, kl))
        for name, text, kl in [("licence", ids, 1.0), ("worse", ids, 3.0), ("shifted", shifted, 2.0)]
    ]
    assert [passage.document for passage in collect(windows)] == ["worse"]


def test_two_of_one_document_in_each_text() -> None:
    passages = [
        Passage(
            text=text,
            document="same",
            context="",
            ids=[1000 * at + 100 * number + token for token in range(32)],
            kl=[],
            mean_kl=kl,
        )
        for at, (text, level) in enumerate((("a", 1.0), ("b", 2.0)))
        for number, kl in enumerate([level, level + 0.1, level + 0.2])
    ]
    kept = worst(passages)
    assert [(passage.text, passage.mean_kl) for passage in kept] == [
        ("b", 2.2),
        ("b", 2.1),
        ("a", 1.2),
        ("a", 1.1),
    ]


@pytest.mark.parametrize("text", ["naïve 日本 😀!", "<|endoftext|>a\n\tb", "�x", ""])
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_pieces_join_to_the_whole(text: str, cut: int) -> None:
    tokenizer = make_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = ids[cut : len(ids) - cut]
    found = pieces(tokenizer, ids)
    assert len(found) == len(ids)
    assert "".join(found) == tokenizer.decode(ids)


def test_a_character_belongs_to_its_last_token() -> None:
    tokenizer = make_tokenizer()
    assert pieces(tokenizer, tokenizer("aéb日", add_special_tokens=False)["input_ids"]) == [
        "a",
        "",
        "é",
        "b",
        "",
        "",
        "日",
    ]


def make_rows(documents: int) -> list[dict[str, Any]]:
    windows = [(document, window) for document in range(documents) for window in range(2)]
    ids = [[0, 10 + document, 40 + window, *range(60, 90)] for document, window in windows]
    return [
        {"input_ids": tokens, "labels": tokens, "document": f"d{document}"}
        for tokens, (document, _) in zip(ids, windows, strict=True)
    ]


def test_beginnings_are_spread_over_texts_and_documents() -> None:
    found = beginnings({"one": make_rows(30), "two": make_rows(2), "three": make_rows(5)})
    places = [(start.text, start.document) for start in found]
    assert places == [("one", "d0"), ("one", "d15"), ("two", "d0"), ("two", "d1"), ("three", "d0"), ("three", "d2")]
    assert all(start.input_ids[2] == 40 and len(start.input_ids) == 24 for start in found)
    counts = [start.text for start in beginnings({name: make_rows(9) for name in "abcd"})]
    assert counts == ["a", "a", "b", "b", "c", "d"]
    assert len(beginnings({"one": make_rows(2)})) == 2


def test_what_all_documents_start_with_is_followed_by_their_own_words() -> None:
    ids = [*[7] * 40, *range(100, 150)]
    row = {"input_ids": ids, "labels": [-100] * 40 + ids[40:], "document": "chat"}
    assert beginnings({"chats": [row]})[0].input_ids == ids[: 39 + 24]


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
    assert [entry.document for entry in found] == ["d0", "d1", "d2", "d3"]
    for entry, start in zip(found, beginnings({"mine": rows}), strict=True):
        prompt = start.input_ids
        assert entry.text == "mine"
        assert entry.prompt == tokenizer.decode(prompt)
        for name, model in (("base", base), ("tuned", tuned)):
            assert getattr(entry, name) == tokenizer.decode(greedy(model, prompt)[len(prompt) :])
    assert any(entry.base != entry.tuned for entry in found)

    def unwanted(*arguments: Any) -> list[list[int]]:
        raise AssertionError("written a second time")

    monkeypatch.setattr(module, "answer", unwanted)
    assert continuations(base, tuned, tokenizer, {"mine": rows}, steps) == found
    with pytest.raises(AssertionError, match="second time"):
        continuations(base, tuned, tokenizer, {"mine": make_rows(3)}, steps)
