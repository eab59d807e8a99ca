"""Multiple-choice questions as ARC, MMLU and CommonsenseQA are published: by name from the hub, or from a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, NamedTuple

from keeptune.data.documents import hub_rows
from keeptune.data.files.tables import parquet_rows
from keeptune.errors import SourceError, SourceNotFound

_LAYOUTS = (
    "give one question a line, as published: question, choices {text, label}, answerKey (ARC, CommonsenseQA); "
    "question {stem, choices [{text, label}]}, answerKey (AllenAI's files); question, choices, answer (MMLU)"
)


class HubTask(NamedTuple):
    """Where a task's questions stand on the hub."""

    name: str
    config: str
    split: str


HUB_TASKS = {
    "arc": HubTask("allenai/ai2_arc", "ARC-Challenge", "test"),
    "mmlu": HubTask("cais/mmlu", "all", "test"),
    "commonsenseqa": HubTask("tau/commonsense_qa", "default", "validation"),
}


@dataclass(frozen=True, kw_only=True)
class Item:
    """A question and its options."""

    name: str
    """The `id` of the row, or its line."""
    question: str
    choices: tuple[str, ...]
    right: int
    """Position of the right one among `choices`."""


def read_items(source: str) -> tuple[list[Item], list[str]]:
    """The items of a task, and for every row that holds none, its place and what is wrong with it.

    Args:
        source: a key of `HUB_TASKS`, or a .jsonl or .parquet file.

    Raises:
        SourceNotFound: no such file or task, or the hub cannot be reached.
        SourceError: it cannot be read, or holds no item.
    """
    path = Path(source).expanduser()
    if source in HUB_TASKS:
        task = HUB_TASKS[source]
        rows: Iterator[tuple[str, Any]] = hub_rows(task.name, task.split, task.config)
    elif not path.is_file():
        names = ", ".join(HUB_TASKS)
        raise SourceNotFound(f"no task file at {path}", f"check the path after NAME= in --task, or name one of {names}")
    else:
        rows = parquet_rows(path) if path.suffix.lower() == ".parquet" else _lines(path)
    items, flaws = [], []
    for place, row in rows:
        try:
            items.append(parse_item(json.loads(row) if isinstance(row, str) else row, place))
        except (ValueError, RecursionError) as error:
            flaws.append(f"{place}: {error}")
    if not items:
        raise SourceError(f"{source} holds no multiple-choice item ({(flaws or ['it is empty'])[0]})", _LAYOUTS)
    return items, flaws


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is not UTF-8 text (byte {error.start})", _LAYOUTS) from error
    # Not splitlines(): JSON strings may hold the other line separators of Unicode as they are.
    yield from ((f"line {number}", line) for number, line in enumerate(text.split("\n"), start=1) if line.strip())


def parse_item(row: Any, name: str) -> Item:
    """One row in any of the layouts; white space around question and options is dropped.

    Args:
        name: what to call it when it has no `id`.

    Raises:
        ValueError: it is none, or its right answer is missing.
    """
    if not isinstance(row, dict):
        raise ValueError("not an object")
    question: Any = row.get("question")
    choices, key = row.get("choices"), row.get("answerKey")
    if isinstance(question, dict):
        question, choices = question.get("stem"), _columns(question.get("choices"))
    if isinstance(choices, dict):
        texts, labels = choices.get("text"), choices.get("label")
    else:
        texts, key = choices, row.get("answer")
        labels = list(range(len(texts))) if isinstance(texts, list) else None
    if not isinstance(question, str) or not question.strip():
        raise ValueError("no question")
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError("no list of options")
    "".join([question, *texts]).encode()  # half of a surrogate pair is a ValueError here, and a crash in a tokenizer
    if not 2 <= len(texts) <= len(ascii_uppercase):
        raise ValueError(f"{len(texts)} options")
    if not isinstance(labels, list) or len(labels) != len(texts):
        raise ValueError("options and their labels differ in number")
    if isinstance(key, bool) or key not in labels:
        raise ValueError(f"the right answer {key!r} is none of {', '.join(map(str, labels))}")
    options = tuple(text.strip() for text in texts)
    return Item(name=str(row.get("id", name)), question=question.strip(), choices=options, right=labels.index(key))


def _columns(choices: Any) -> dict[str, list[Any]]:
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise ValueError("no list of options")
    return {column: [choice.get(column) for choice in choices] for column in ("text", "label")}
