"""Classes of tokens: boundaries, and what kind a token is, on a byte-level tokenizer where characters fall apart."""

from __future__ import annotations

import numpy as np
import pytest

from keeptune.audit.where.collector import (
    KINDS,
    POSITIONS,
    PROBABILITIES,
    Kinds,
    kind,
    position_classes,
    probability_classes,
)
from tests.helpers.models import make_tokenizer


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
