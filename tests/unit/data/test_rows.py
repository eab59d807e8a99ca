"""One more layout of rows is one entry, read from files and tokenized; the accepted ones are named in errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from keeptune.data.documents import load_documents
from keeptune.data.encode import encode
from keeptune.data.rows import IGNORED_LABEL, LAYOUTS, Layout, accepted_columns, checked, layout_of
from keeptune.errors import SourceError


def check(row: dict[str, Any], place: str) -> dict[str, Any]:
    if row["output"] == "":
        raise SourceError(f"{place}: the output is empty", "give an output")
    return {"order": row["order"], "output": row["output"]}


def tokenize(
    document: dict[str, Any], tokenizer: PreTrainedTokenizerBase, max_length: int, document_start: int | None
) -> Iterator[tuple[list[int], list[int]]]:
    asked, said = (tokenizer(document[column])["input_ids"] for column in ("order", "output"))
    yield asked + said, [IGNORED_LABEL] * len(asked) + said


@pytest.fixture
def instructions() -> Iterator[None]:
    """One more layout, taken out again afterwards."""
    LAYOUTS["order"] = Layout(columns=("order", "output"), check=check, tokenize=tokenize)
    yield
    del LAYOUTS["order"]


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.mark.usefixtures("instructions")
def test_an_entry_is_read_checked_and_tokenized(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    row = {"order": "say", "output": "yes", "id": 3}
    documents = load_documents(write(tmp_path / "rows.jsonl", row, row))
    assert list(documents) == [
        {"order": "say", "output": "yes", "document": f"rows.jsonl:{number}"} for number in (1, 2)
    ]
    encoded = encode(documents, tokenizer, max_length=9, document_start=None)
    assert tokenizer.decode(encoded[0]["input_ids"]) == "sayyes"
    assert tokenizer.decode([label for label in encoded[0]["labels"] if label >= 0]) == "yes"
    with pytest.raises(SourceError, match="line 2: the output is empty"):
        load_documents(write(tmp_path / "bad.jsonl", row, {**row, "output": ""}))


def test_the_layouts_that_were_there_go_first() -> None:
    for columns, expected in [
        ({"text"}, "text"),
        ({"text", "prompt", "completion"}, "completion"),
        ({"text", "prompt", "completion", "messages"}, "messages"),
        ({"text", "conversations", "instruction", "output"}, "text"),
        ({"instruction", "output", "question", "answer"}, "instruction and output"),
        ({"prompt"}, None),
        (set(), None),
    ]:
        assert layout_of(columns) is (None if expected is None else LAYOUTS[expected])


@pytest.mark.usefixtures("instructions")
def test_errors_name_every_layout() -> None:
    accepted = accepted_columns()
    assert accepted.startswith("accepted columns: messages, or prompt and completion, or text, or ")
    assert accepted.endswith(", or order and output")
    for row in ({"question": "a"}, ["a"], None):
        with pytest.raises(SourceError, match="row 3") as refused:
            checked(row, "row 3")
        assert refused.value.fix == accepted


def test_columns_of_no_layout_are_not_encoded(tokenizer: PreTrainedTokenizerFast) -> None:
    from_elsewhere = load_documents("pydoc", limit=2).rename_column("text", "body")
    with pytest.raises(SourceError, match="the data set has the columns body, document"):
        encode(from_elsewhere, tokenizer, max_length=9, document_start=None)
