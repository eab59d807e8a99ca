"""The data of a run: which rows train, which are held out, what is left out, and what each verb says of a bad row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from keeptune.data.documents import load_documents, split_documents
from keeptune.errors import SourceError
from keeptune.runs.card import card
from keeptune.runs.settings import TuneSettings
from keeptune.runs.task_rows import task_rows
from tests.helpers.cli import run


def settings(data: Path, **changed: Any) -> TuneSettings:
    return TuneSettings(model="base", data=str(data), out="run", held_out=0.2, max_length=64, **changed)


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def completions(path: Path, held_out: str, training: str) -> Path:
    """Ten rows of which those to be held out have one completion, and those to train on another."""
    write(path, [{"prompt": "a", "completion": "b"}] * 10)
    held = set(split_documents(load_documents(str(path)), 0.2, settings(path).seed)[1]["document"])
    names = [f"{path.name}:{number}" for number in range(1, 11)]
    return write(path, [{"prompt": "a", "completion": held_out if name in held else training} for name in names])


def test_rows_that_are_too_long_are_said_to_be_held_out_or_to_train_on(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    data = completions(tmp_path / "a.jsonl", "x" * 90, "y")
    with pytest.raises(SourceError, match="every held-out row is longer than the context of 64 tokens") as refused:
        task_rows(settings(data), tokenizer)
    assert refused.value.fix == (
        "raise --max-length to at least 92 (the longest row needs 92), or hold out more documents (--held-out)"
    )
    with pytest.raises(SourceError, match="every training row is longer than the context of 64 tokens"):
        task_rows(settings(completions(tmp_path / "b.jsonl", "x", "y" * 90)), tokenizer)
    rows = [{"prompt": "a", "completion": "b" * (90 if number % 2 else 1)} for number in range(40)]
    task_rows(settings(write(tmp_path / "c.jsonl", rows)), tokenizer)
    said = " ".join(capsys.readouterr().err.split())
    assert "of 32 training rows: longer than the context of 64 tokens" in said
    assert "of 8 held-out rows: longer than the context of 64 tokens" in said


def test_documents_without_loss_are_said_to_be_held_out(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Empty files have no token to predict."""
    names = [f"{number}.txt" for number in range(10)]
    for name in names:
        (tmp_path / name).write_text("some text")
    for name in split_documents(load_documents(str(tmp_path)), 0.2, settings(tmp_path).seed)[1]["document"]:
        (tmp_path / name).write_text("")
    with pytest.raises(SourceError, match="no held-out document has a token to predict") as refused:
        task_rows(settings(tmp_path), tokenizer)
    assert "--held-out" in refused.value.fix


def test_a_single_document_says_how_to_give_two(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    (tmp_path / "book.txt").write_text("text " * 1000)
    with pytest.raises(SourceError, match="a single document cannot be split") as refused:
        task_rows(settings(tmp_path / "book.txt"), tokenizer)
    assert "one a row of a .jsonl" in refused.value.fix


def test_bad_rows_are_counted_in_log_and_card(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": f"text {number}" if number % 3 else None} for number in range(12)]
    given = settings(write(tmp_path / "r.jsonl", rows), skip_bad_rows=True)
    loaded = task_rows(given, tokenizer)
    assert loaded.bad == 4
    said = " ".join(capsys.readouterr().err.split())
    assert f"bad rows left out of {given.data}, 4 of 12: r.jsonl, line 1: text is NoneType" in said
    for line in (1, 4, 7):
        assert f"r.jsonl, line {line}: text is NoneType, not text" in said
    reading = {"P": 1, "step": 1, "L_ft": 2.0, "L_ft_on": "held-out", "L_f": 1.5, "L_f_base": 1.0, "KL": 0.5}
    told = card(given, {**reading, "versions": {}}, {**reading, "versions": {}}, bad_rows=loaded.bad)
    assert "Rows of the data that could not be read and were left out: 4." in told


def test_when_every_row_is_bad_the_first_is_told(tmp_path: Path) -> None:
    data = write(tmp_path / "r.jsonl", [{"text": 1}, {"text": 2}])
    with pytest.raises(
        SourceError, match=r"no documents: every row is bad \(2\), the first: r.jsonl, line 1: text is int"
    ):
        load_documents(str(data), skip_bad_rows=True)


@pytest.mark.parametrize(
    "verb",
    [
        ("tune", "BASE", "DATA", "--out", "out"),
        ("tune", "BASE", "GOOD", "--out", "out", "--drift-text", "DATA"),
        ("replay", "BASE", "--text", "DATA", "--out", "out"),
        ("audit", "BASE", "BASE", "--text", "mine=DATA", "--out", "out"),
        ("plan", "BASE", "DATA", "--budget", "1", "--out", "out"),
    ],
    ids=lambda verb: f"{verb[0]}{' drift text' * ('--drift-text' in verb)}",
)
def test_each_verb_names_the_bad_row_and_ends_with_2(
    verb: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model_folder: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    good = [{"text": f"text {number} " * 20} for number in range(8)]
    places = {
        "BASE": str(model_folder),
        "GOOD": str(write(tmp_path / "good.jsonl", good)),
        "DATA": str(write(tmp_path / "bad.jsonl", [*good, {"text": "half \ud800"}])),
    }
    words = ["mine=" + places["DATA"] if word == "mine=DATA" else places.get(word, word) for word in verb]
    assert run(monkeypatch, *words) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "bad.jsonl, line 9: text holds half of a surrogate pair (\\ud800)" in said
    assert "--skip-bad-rows" in said
    assert not (tmp_path / "out").exists(), "said before anything is written"
