"""The layouts that people have become chats or prompts; a column that means something is honoured or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keeptune.data.documents import load_documents
from keeptune.data.messages import unpack
from keeptune.data.rows import checked
from keeptune.errors import SourceError
from tests.helpers.chats import rows, spans
from tests.helpers.layouts import HI, PAGE, READ, REFUSED, page
from tests.helpers.models import make_tokenizer


@pytest.mark.parametrize(
    ("row", "expected"), READ, ids=lambda value: "+".join(value) if isinstance(value, dict) else ""
)
def test_a_layout_becomes_the_chat_that_it_means(
    tmp_path: Path, row: dict[str, Any], expected: list[dict[str, Any]]
) -> None:
    """From a file to tokens: the last answer and its end bear loss."""
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row))
    loaded = load_documents("rows.jsonl")
    assert unpack(loaded[0]["messages"]) == expected
    assert unpack(checked(loaded[1], "again")["messages"]) == expected
    if expected[-1].get("train", True):
        tokenizer = make_tokenizer()
        assert spans(tokenizer, rows(tokenizer, row)[0]["labels"])[-1] == expected[-1]["content"] + "<|im_end|>"


@pytest.mark.parametrize(
    ("row", "what"),
    REFUSED,
)
def test_a_column_that_cannot_be_honoured_is_refused_by_name(row: dict[str, Any], what: str) -> None:
    with pytest.raises(SourceError, match=what) as refused:
        checked(row, "row 1")
    assert refused.value.what.startswith("row 1")
    assert refused.value.fix


def test_columns_that_are_not_read_are_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = [{"messages": HI, "id": 1, "score": 0.5, "tools": None}, {"messages": HI, "id": 2, "chosen": HI}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, written)))
    assert load_documents("rows.jsonl").column_names == ["messages", "document"]
    said = capsys.readouterr().err
    assert "columns that are not read: chosen (1 rows), id (2 rows), score (1 rows)" in said


def test_nulls_of_tools_that_count_as_absent_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def calling(arguments: Any) -> list[dict[str, Any]]:
        call = {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": arguments}]}
        return [HI[0], call, {"role": "tool", "content": "1"}, *HI]

    written = [{"messages": calling({"a": 1, "b": None})}, {"messages": calling('{"b": null}')}, {"messages": HI}]
    written.append({"messages": HI, "tools": [{"name": "f", "parameters": {"a": {"type": "string", "enum": None}}}]})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, written)))
    load_documents("rows.jsonl")
    assert "a null in the arguments or schema of a tool counts as an absent key (2 rows)" in capsys.readouterr().err


def test_rows_with_and_without_tools_are_one_data_set(tmp_path: Path) -> None:
    written = [{"messages": HI}, {"messages": HI, "tools": [{"name": "f"}], "chat_template_kwargs": {"style": 1}}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, written)))
    loaded = load_documents("rows.jsonl")
    assert loaded["tools"] == [None, '[{"type": "function", "function": {"name": "f"}}]']
    assert loaded["chat_template_kwargs"] == [None, '{"style": 1}']


def test_the_page_says_what_is_so() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "make templates"
