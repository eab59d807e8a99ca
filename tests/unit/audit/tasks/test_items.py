"""Published layouts, and what is said of rows that fit none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from keeptune.audit.tasks.items import Item, parse_item, read_items
from keeptune.errors import SourceError, SourceNotFound

TEXTS, LABELS = ["red", " green ", "blue"], ["A", "B", "C"]
EXPECTED = Item(name="q7", question="Which colour?", choices=("red", "green", "blue"), right=1)
LAYOUTS: dict[str, dict[str, Any]] = {
    "ARC and CommonsenseQA as data sets": {
        "id": "q7",
        "question": "Which colour?",
        "question_concept": "colour",
        "choices": {"text": TEXTS, "label": LABELS},
        "answerKey": "B",
    },
    "ARC and CommonsenseQA as their authors' files": {
        "id": "q7",
        "question": {
            "stem": "Which colour?",
            "choices": [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)],
        },
        "answerKey": "B",
    },
    "MMLU": {"id": "q7", "question": " Which colour?\n", "subject": "art", "choices": TEXTS, "answer": 1},
}
ARC = LAYOUTS["ARC and CommonsenseQA as data sets"]
MMLU = LAYOUTS["MMLU"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts(layout: str) -> None:
    assert parse_item(LAYOUTS[layout], "line 1") == EXPECTED


def test_some_arc_items_number_their_options() -> None:
    row = {**ARC, "choices": {"text": TEXTS, "label": ["1", "2", "3"]}, "answerKey": "3"}
    assert parse_item(row, "line 1").right == 2


@pytest.mark.parametrize(
    ("row", "flaw"),
    [
        (["Which colour?"], "not an object"),
        ({}, "no question"),
        ({**MMLU, "question": "  "}, "no question"),
        ({**MMLU, "choices": None}, "no list of options"),
        ({**MMLU, "choices": ["red", 3]}, "no list of options"),
        ({**MMLU, "choices": ["red", " "]}, "no list of options"),
        ({**MMLU, "choices": ["red"], "answer": 0}, "1 options"),
        ({**MMLU, "choices": ["red"] * 27}, "27 options"),
        ({**MMLU, "answer": 3}, "right answer 3 is none of 0, 1, 2"),
        ({**MMLU, "answer": True}, "right answer True"),
        ({key: value for key, value in MMLU.items() if key != "answer"}, "right answer None"),
        ({**ARC, "answerKey": ""}, "right answer '' is none of A, B, C"),
        ({**ARC, "choices": {"text": TEXTS, "label": ["A", "B"]}}, "differ in number"),
        ({**ARC, "choices": {"text": TEXTS}}, "differ in number"),
        ({"question": {"stem": "Which?", "choices": ["red"]}, "answerKey": "A"}, "no list of options"),
        ({"question": {"stem": "Which?"}, "answerKey": "A"}, "no list of options"),
    ],
)
def test_rows_of_no_layout_say_why(row: Any, flaw: str) -> None:
    with pytest.raises(ValueError, match=flaw):
        parse_item(row, "line 1")


def test_unreadable_lines_are_counted_with_their_reason(tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    nameless = {key: value for key, value in MMLU.items() if key != "id"}
    lines = [json.dumps(MMLU), '{"question": "cut o', "", json.dumps({**ARC, "answerKey": "F"}), json.dumps(nameless)]
    lines += [json.dumps({**MMLU, "question": "half \ud800"}), "[" * 20_000, '{"id": ' + "9" * 5000 + "}"]
    path.write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    items, flaws = read_items(str(path))
    assert [item.name for item in items] == ["q7", "line 5"]
    assert [flaw.split(":")[0] for flaw in flaws] == [f"line {number}" for number in (2, 4, 6, 7, 8)]


def test_items_of_a_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "task.parquet"
    Dataset.from_list([MMLU, {**MMLU, "answer": 9}, {**MMLU, "id": "q8"}]).to_parquet(path)
    items, flaws = read_items(str(path))
    assert [item.name for item in items] == ["q7", "q8"]
    assert [flaw.split(":")[0] for flaw in flaws] == ["row 2"]


def test_files_without_items(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="no task file"):
        read_items(str(tmp_path / "missing.jsonl"))
    path = tmp_path / "task.jsonl"
    for content, said in ((b"", "it is empty"), (b'{"text": "a"}\n', "line 1: no question"), (b"\xff\xfe", "UTF-8")):
        path.write_bytes(content)
        with pytest.raises(SourceError, match=said) as refused:
            read_items(str(path))
        assert "ARC" in refused.value.fix
