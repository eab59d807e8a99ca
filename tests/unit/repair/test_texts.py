"""The task's text apart by document, and how models' own texts start."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from keeptune.errors import KeeptuneError
from keeptune.repair.pair import check_names
from keeptune.repair.texts import _prompts, task_text
from tests.helpers.models import make_tokenizer
from tests.unit.repair.conftest import Models


def documents(home: Path, number: int) -> str:
    home.mkdir()
    for place in range(number):
        (home / f"{place}.txt").write_text(f"Text {place} is about the number {place}. " * 3)
    return str(home)


def test_the_parts_of_a_task_share_no_document(models: Models, tmp_path: Path) -> None:
    settings = models.settings(tmp_path / "out", task_text=documents(tmp_path / "text", 24), max_length=32)
    names = check_names(settings.base, settings.tuned)
    task = task_text(settings, names)
    assert task is not None
    parts = [{row["document"] for row in part} for part in (task.choosing, task.fresh, task.training)]
    assert all(parts) and sum(map(len, parts)) == len(set.union(*parts)) <= 24
    assert len(task.choosing) <= settings.rows and len(task.fresh) <= settings.rows
    assert task_text(replace(settings, task_text=None), names) is None


@pytest.mark.parametrize(
    ("number", "what"), [(1, "has 1 documents, too few"), (3, "has 3 documents, too few"), (0, "no data at")]
)
def test_a_task_that_cannot_be_split_is_refused(models: Models, tmp_path: Path, number: int, what: str) -> None:
    source = documents(tmp_path / "text", number) if number else str(tmp_path / "nothing.txt")
    settings = models.settings(tmp_path / "out", task_text=source)
    with pytest.raises(KeeptuneError, match=what):
        task_text(settings, check_names(settings.base, settings.tuned))


def test_rows_that_cannot_be_read_are_refused_or_counted(
    models: Models, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "rows.jsonl"
    good = [json.dumps({"text": f"Text {n} is about the number {n}."}) for n in range(9)]
    file.write_text("\n".join([*good, json.dumps({"other": 1})]) + "\n")
    settings = models.settings(tmp_path / "out", task_text=str(file))
    names = check_names(settings.base, settings.tuned)
    with pytest.raises(KeeptuneError, match=r"rows\.jsonl"):
        task_text(settings, names)
    assert task_text(replace(settings, skip_bad_rows=True), names) is not None


def test_a_model_without_chats_writes_documents_unless_it_is_the_tuned_one(models: Models, tmp_path: Path) -> None:
    settings = models.settings(tmp_path / "out", prompts="mixed")
    plain, chat = make_tokenizer(None), make_tokenizer()
    assert _prompts(settings, settings.base, plain) == "document"
    assert _prompts(settings, settings.base, chat) == "mixed" == _prompts(settings, settings.tuned, chat)
    assert _prompts(replace(settings, prompts="document"), settings.tuned, chat) == "document"
    with pytest.raises(KeeptuneError, match="chat template"):
        _prompts(settings, settings.tuned, plain)
