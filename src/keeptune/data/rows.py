"""The accepted layouts of a row: its columns, how they are checked, and how they become tokens.

To accept one more layout, add an entry to `LAYOUTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from keeptune.data.chat import chat_tokens, require_chat
from keeptune.errors import SourceError

IGNORED_LABEL = -100
ROW_LENGTH = 128
"""Default tokens of a replay row."""
MAX_LENGTH = 256
"""Default tokens of a row of task text, and of a window of measured text."""
SEED = 42
"""Default seed of everything random but an audit's own text, which no training pool may share."""

Columns = dict[str, Any]
TokenRow = tuple[list[int], list[int]]
"""Input ids and labels, of equal length."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One layout of rows."""

    columns: tuple[str, ...]
    """The columns that a row of this layout has; others are ignored."""
    check: Callable[[Columns, str], Columns]
    """(row, its place for errors) → the row's columns of this layout, or a `SourceError`."""
    tokenize: Callable[[Columns, PreTrainedTokenizerBase, int, int | None], Iterator[TokenRow]]
    """(document, tokenizer, maximal length, id that starts a document or None) → token rows."""
    require: Callable[[PreTrainedTokenizerBase], None] = lambda tokenizer: None
    """Raises `ConfigError` if the tokenizer does not suit the layout."""


def layout_of(columns: Iterable[str]) -> Layout | None:
    """The first layout in `LAYOUTS` whose columns are all there."""
    present = set(columns)
    return next((layout for layout in LAYOUTS.values() if present.issuperset(layout.columns)), None)


def accepted_columns() -> str:
    """The columns of all layouts, for error messages."""
    return "accepted columns: " + ", or ".join(" and ".join(layout.columns) for layout in reversed(LAYOUTS.values()))


def checked(row: Any, place: str) -> Columns:
    """The columns of the row's layout, checked.

    Raises:
        SourceError: the row fits no layout.
    """
    if not isinstance(row, dict):
        raise SourceError(f"{place} is not an object of columns", accepted_columns())
    layout = layout_of(row)
    if layout is None:
        raise SourceError(f"{place} has the columns {', '.join(sorted(row)) or 'none'}", accepted_columns())
    return layout.check(row, place)


def windows(
    text: str, tokenizer: PreTrainedTokenizerBase, max_length: int, document_start: int | None
) -> Iterator[TokenRow]:
    """Consecutive windows of a text; each starts with the last token of the window before."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if document_start is not None:
        ids = [document_start, *ids]
    for start in range(0, len(ids) - 1, max_length - 1):
        window = ids[start : start + max_length]
        yield window, list(window)


def _strings(*columns: str) -> Callable[[Columns, str], Columns]:
    def check(row: Columns, place: str) -> Columns:
        for column in columns:
            if not isinstance(row[column], str):
                kind = type(row[column]).__name__
                raise SourceError(f"{place}: {column} is {kind}, not text", f"make {column} a string")
        return {column: row[column] for column in columns}

    return check


def _messages(row: Columns, place: str) -> Columns:
    messages = row["messages"]
    fix = 'write messages as [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'
    if not isinstance(messages, list) or not messages:
        raise SourceError(f"{place}: messages is not a list of turns", fix)
    turns = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise SourceError(f"{place}: turn {number} of messages lacks a text role or content", fix)
        if message.get("tool_calls"):
            raise SourceError(f"{place}: turn {number} calls tools, which keeptune does not render", fix)
        turns.append({"role": message["role"], "content": message["content"]})
    return {"messages": turns}


def _chat(
    document: Columns, tokenizer: PreTrainedTokenizerBase, max_length: int, document_start: int | None
) -> Iterator[TokenRow]:
    ids, answers = chat_tokens(document["messages"], document["document"], tokenizer)
    yield ids, [token if answer else IGNORED_LABEL for token, answer in zip(ids, answers, strict=True)]


def _completion(
    document: Columns, tokenizer: PreTrainedTokenizerBase, max_length: int, document_start: int | None
) -> Iterator[TokenRow]:
    """Prompt and completion tokenized together: a token that spans the boundary belongs to the completion."""
    prompt, completion = document["prompt"], document["completion"]
    prompt_ids = tokenizer(prompt, verbose=False)["input_ids"]
    ids = list(tokenizer(prompt + completion, verbose=False)["input_ids"])
    if tokenizer.eos_token_id is not None and (not ids or ids[-1] != tokenizer.eos_token_id):
        ids.append(tokenizer.eos_token_id)
    start = 0
    while start < min(len(prompt_ids), len(ids)) and prompt_ids[start] == ids[start]:
        start += 1
    yield ids, [IGNORED_LABEL] * start + ids[start:]


# If a row has the columns of several layouts, the first one is used.
LAYOUTS = {
    "messages": Layout(columns=("messages",), check=_messages, tokenize=_chat, require=require_chat),
    "completion": Layout(
        columns=("prompt", "completion"), check=_strings("prompt", "completion"), tokenize=_completion
    ),
    "text": Layout(
        columns=("text",),
        check=_strings("text"),
        tokenize=lambda document, tokenizer, max_length, document_start: windows(
            document["text"], tokenizer, max_length, document_start
        ),
    ),
}
