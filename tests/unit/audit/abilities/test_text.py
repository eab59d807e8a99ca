"""Words, sentences, JSON and languages of answers, also of hostile ones."""

from __future__ import annotations

import time
from typing import Any

import pytest

from keeptune.audit.abilities.text import fault, json_value, language, sentences, unfenced, words

DEEP = "[" * 5_000 + "]" * 5_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  \n\t", []),
        ("... !!! ---", []),
        ("don't stop", ["don't", "stop"]),
        ("don’t", ["don’t"]),
        ("3.5 well-known e.g. things", ["3.5", "well-known", "e.g", "things"]),
        ("snake_case", ["snake", "case"]),
        ("Grüße an Zoë", ["Grüße", "an", "Zoë"]),
        ("日本語 テスト", ["日本語", "テスト"]),
        ("\u202eevil\u202c", ["evil"]),
        ("a\u200bb", ["a", "b"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("...", 0),
        ("A cat sleeps", 1),
        ("A cat sleeps.", 1),
        ("A cat sleeps. A dog barks.", 2),
        ("A cat sleeps. A dog", 2),
        ("Really?! Yes...", 2),
        ('He said "no." Then he left.', 2),
        ("It costs 3.50 dollars.", 1),
        ("Mr. Smith knows Dr. Jones, e.g. from work.", 1),
        ("1. Cats sleep.\n2. Dogs bark.", 2),
        ("One line\nand its end.", 1),
    ],
)
def test_sentences(text: str, expected: int) -> None:
    assert sentences(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ("```\nx\n```", "x"),
        ("  ```JSON5 \nx\n```\n", "x"),
        ("```json\nx", "```json\nx"),
        ("text\n```json\nx\n```", "text\n```json\nx\n```"),
        ("```\nx\n```\n```\ny\n```", "```\nx\n```\n```\ny\n```"),
    ],
)
def test_a_fence_around_the_whole_answer_is_left_aside(text: str, expected: str) -> None:
    assert unfenced(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": [1, 2.5, null, true]}', {"a": [1, 2.5, None, True]}),
        (' \n["é", "\\u00e9"]\n', ["é", "é"]),
        ('```json\n{"a": {"b": {}}}\n```', {"a": {"b": {}}}),
        ("3", 3),
    ],
)
def test_json(text: str, expected: Any) -> None:
    assert json_value(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "no", "{", '{"a": 1,}', "{'a': 1}", '{"a": 1} and more', 'Sure! {"a": 1}', '{"a": 1}{"a": 1}', "[1 2]"),
        *("{a: 1}", '{"a": NaN}', "[Infinity]", "[-Infinity]", '{"a": 1, "a": 2}', DEEP, '"' + "x" * 30_000 + '"'),
        *('{"a": "\n"}', "True", "None", '\ufeff{"a": 1}', '{"a": 1}\x00', "“a”", "{“a”: 1}", "// x\n1", "```json\n{}"),
    ],
)
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(ValueError):
        json_value(text)


ENGLISH = "The heart is a muscle that pumps the blood through the body, and it does so for as long as we live."
GERMAN = "Das Herz ist ein Muskel, der das Blut durch den Körper pumpt, und es schlägt, solange wir leben."
FRENCH = "Le cœur est un muscle qui fait circuler le sang dans le corps, et il bat pendant toute la vie."
SPANISH = "El corazón es un músculo que mueve la sangre por todo el cuerpo, y late durante toda la vida."
VERILOG = "module counter(input clk, output reg [7:0] q); always @(posedge clk) q <= q + 1; assign w = q[0]; endmodule"
RUSSIAN = "Сердце — это мышца, которая качает кровь по всему телу, пока человек живёт."
LATIN_WORDS = "apple banana cherry grape lemon mango orange peach pear plum fig kiwi melon papaya"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ENGLISH, "en"),
        (ENGLISH.upper(), "en"),
        (GERMAN, "de"),
        (FRENCH, "fr"),
        (SPANISH, "es"),
        (VERILOG, "other"),
        (LATIN_WORDS, "other"),
        (RUSSIAN, "other"),
        ("心臓は全身に血液を送り出す筋肉です。", "other"),
        ("Да", "other"),
        ("\ufffd;\ufffd&$ \ufffd\x07=)(\ufffd]\ufffd q7 \ufffd\ufffd%", "other"),
        ("<<>>--||::;;[[]]{{}}((", "other"),
        ("3 + 4 = 7", None),
        ("Yes, it is.", None),
        ("", None),
        ("12 34 56", None),
        (ENGLISH * 3 + "日本", "en"),
    ],
)
def test_languages(text: str, expected: str | None) -> None:
    assert language(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ENGLISH, None),
        ("Paris.", None),
        ("- bread\n- cheese", None),
        ("", "empty"),
        ("   \n", "empty"),
        ("?!…", "empty"),
        ("\u200b\u200b", "empty"),
        ("the cat and " * 12, "loop"),
        ("It is good. " * 9, "loop"),
        ("\n".join(f"{number}. The next step is this." for number in range(1, 12)), "loop"),
        ("a" * 400, "loop"),
        (VERILOG, "language"),
        (GERMAN, "language"),
        (RUSSIAN, "language"),
    ],
)
def test_faults_of_an_answer_in_prose(text: str, expected: str | None) -> None:
    assert fault(text) == expected
    assert fault(GERMAN, "de") is None


def test_very_long_answers_are_read_in_time() -> None:
    start = time.monotonic()
    for text in ("ab" * 500_000, "word " * 200_000, "{" * 500_000, "é" * 500_000, "*" * 500_000, '"' * 500_000):
        fault(text)
        sentences(text)
        with pytest.raises(ValueError):
            json_value(text)
    assert time.monotonic() - start < 20
