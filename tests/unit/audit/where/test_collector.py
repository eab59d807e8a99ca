"""Classes of tokens, on a byte-level tokenizer where characters fall apart, and drift by class from one pass."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import kl_div

from keeptune.audit import meter
from keeptune.audit.meter import measure
from keeptune.audit.where.collector import (
    KINDS,
    POSITIONS,
    PROBABILITIES,
    Kinds,
    Where,
    kind,
    position_classes,
    probability_classes,
)
from keeptune.stats import bootstrap_ratio
from tests.helpers.models import make_model, make_tokenizer

TEXT = "Ten words, 42 numbers;\n and naïve bytes: if (x[3] != y) { return 日本; }  "


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "BATCH_TOKENS", 200)


def make_rows(documents: int = 12) -> list[dict[str, Any]]:
    tokenizer = make_tokenizer()
    rows = []
    for document in range(documents):
        for window in range(2):
            ids = [0, *tokenizer(TEXT[document + window :] + "é" * window, add_special_tokens=False)["input_ids"]]
            labels = [-100 if position < document else token for position, token in enumerate(ids)]
            rows.append({"input_ids": ids, "labels": labels, "document": f"d{document}"})
    # A special token as a target, in one document only.
    rows.append({"input_ids": [0, 2, 5], "labels": [-100, 2, -100], "document": "d0"})
    return rows


@torch.no_grad()
def each_token(base: torch.nn.Module, tuned: torch.nn.Module, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    tokenizer, found = make_tokenizer(), []
    for row in rows:
        p_TV, q_TV = (
            m(input_ids=torch.tensor([row["input_ids"]])).logits[0].double().log_softmax(-1) for m in (base, tuned)
        )
        for position in range(1, len(row["labels"])):
            target = row["labels"][position]
            if target == -100:
                continue
            p_V, q_V = p_TV[position - 1], q_TV[position - 1]
            found.append(
                {
                    "document": row["document"],
                    "kl": float(kl_div(q_V, p_V, reduction="sum", log_target=True)),
                    "ce_change": float(p_V[target] - q_V[target]),
                    "probability": float(p_V[target].exp()),
                    "position": position,
                    "text": tokenizer.decode([target]),
                    "special": target < 3,
                }
            )
    return found


CLASSES = {
    ("probability", "below 0.01"): lambda token: token["probability"] < 0.01,
    ("probability", "0.01 to 0.1"): lambda token: 0.01 <= token["probability"] < 0.1,
    ("probability", "0.1 to 0.5"): lambda token: 0.1 <= token["probability"] < 0.5,
    ("position", "1–3"): lambda token: token["position"] <= 3,
    ("position", "16–63"): lambda token: 16 <= token["position"] <= 63,
    ("kind", "digits"): lambda token: token["text"].isdigit(),
    ("kind", "Latin letters"): lambda token: token["text"].isalpha() and not token["special"],
    ("kind", "white space"): lambda token: token["text"].isspace(),
    ("kind", "part of a character"): lambda token: token["text"] == "\ufffd",
    ("kind", "punctuation and symbols"): lambda token: (
        unicodedata.category(token["text"][0])[0] in "PS" and token["text"] != "\ufffd" and not token["special"]
    ),
    ("kind", "special token"): lambda token: token["special"],
}


def test_every_class_equals_a_computation_token_by_token() -> None:
    base, tuned, rows = make_model(), make_model(seed=1), make_rows()
    with torch.no_grad():
        base.model.norm.weight.mul_(4)  # some tokens are likely then
    collector = Where(make_tokenizer())
    drift = measure(base, tuned, rows, on_tokens=collector.add, dtype=torch.float32)
    summary = collector.summary()
    tokens = each_token(base, tuned, rows)
    whole = sum(token["kl"] for token in tokens)
    for (group, name), belongs in CLASSES.items():
        found = next(entry for entry in summary.classes[group] if entry.name == name)
        members = [token for token in tokens if belongs(token)]
        documents = sorted({token["document"] for token in members}, key=drift.documents.index)
        sums = {
            key: np.array([sum(t[key] for t in members if t["document"] == name) for name in documents])
            for key in ("kl", "ce_change")
        }
        counts = np.array([sum(t["document"] == name for t in members) for name in documents], dtype=float)
        assert found.tokens == len(members)
        assert found.token_share == pytest.approx(len(members) / len(tokens))
        assert found.kl_share == pytest.approx(sum(sums["kl"]) / whole, rel=1e-4)
        for key in ("kl", "ce_change"):
            expected = bootstrap_ratio(sums[key], counts)
            interval = getattr(found, key)
            assert interval.value == pytest.approx(expected.value, rel=1e-3, abs=1e-5), (name, key)
            assert interval.documents == len(documents)
            if len(documents) > 1:
                assert interval.low == pytest.approx(expected.low, rel=1e-3, abs=1e-4)
    for entries in summary.classes.values():
        assert sum(entry.tokens for entry in entries) == drift.tokens_D.sum()
        assert sum(entry.kl_share for entry in entries) == pytest.approx(1.0)
        assert sum(entry.kl.value * entry.tokens for entry in entries) == pytest.approx(drift.column("kl").sum())


def test_few_documents_are_no_evidence_and_no_drift_has_no_shares() -> None:
    collector = Where(make_tokenizer())
    measure(make_model(), make_model(), make_rows(documents=3), on_tokens=collector.add, dtype=torch.float32)
    for entries in collector.summary().classes.values():
        assert entries
        for entry in entries:
            assert entry.kl_share is None
            assert entry.kl.value == 0.0
            assert entry.kl.documents <= 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" the", "Latin letters"),
        ("naïve", "Latin letters"),
        ("'t", "Latin letters"),
        ("x1", "Latin letters"),
        ("_", "punctuation and symbols"),
        ("ﬁ", "Latin letters"),
        ("Ａ", "Latin letters"),
        (" λόγος", "Greek"),
        ("да", "Cyrillic"),
        ("של", "Hebrew"),
        ("ال", "Arabic"),
        ("ा", "Devanagari"),
        ("ไทย", "Thai"),
        ("語", "Chinese characters"),
        ("ー", "Japanese kana"),
        ("の", "Japanese kana"),
        ("カ", "Japanese kana"),
        ("ｶ", "Japanese kana"),
        ("한국", "Korean"),
        ("ქართ", "another script"),
        ("一", "Chinese characters"),
        (" 42", "digits"),
        ("٣", "digits"),
        ("½", "digits"),
        (" !=", "punctuation and symbols"),
        ("});\n", "punctuation and symbols"),
        ("☂\ufe0f", "punctuation and symbols"),
        ("\u0301", "punctuation and symbols"),
        ("\n\n\t", "white space"),
        ("\u3000", "white space"),
        ("", "white space"),
        (" \ufffd", "part of a character"),
    ],
)
def test_kinds_of_texts(text: str, expected: str) -> None:
    assert kind(text) == expected
    assert expected in KINDS


def test_kinds_of_a_byte_level_tokenizer() -> None:
    tokenizer = make_tokenizer()
    ids = tokenizer("<|endoftext|>a1é \n;", add_special_tokens=False)["input_ids"]
    expected = [
        "special token",
        "Latin letters",
        "digits",
        "part of a character",
        "part of a character",
        "white space",
        "white space",
        "punctuation and symbols",
    ]
    kinds = Kinds(tokenizer)
    for _ in range(2):
        assert [KINDS[index] for index in kinds.of(ids)] == expected
    assert kinds.of([]).shape == (0,)


def test_a_boundary_belongs_to_the_class_above_it() -> None:
    below, at = np.nextafter([0.01, 0.1, 0.5, 0.9], 0), np.array([0.01, 0.1, 0.5, 0.9])
    assert [PROBABILITIES[index] for index in probability_classes(below)] == list(PROBABILITIES[:4])
    assert [PROBABILITIES[index] for index in probability_classes(at)] == list(PROBABILITIES[1:])
    assert probability_classes(np.array([0.0, 1.0])).tolist() == [0, 4]
    lengths = np.array([1, 3, 4, 15, 16, 63, 64, 255, 256, 9999])
    assert [POSITIONS[index] for index in position_classes(lengths)] == [name for name in POSITIONS for _ in range(2)]
