"""The accepted layouts of a row: columns, their check, and their tokens. For one more add an entry to `LAYOUTS`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from keeptune.errors import ConfigError, SourceError

IGNORED_LABEL = -100
ROW_LENGTH = 128
"""Default tokens of a replay row."""
MAX_LENGTH = 256
"""Default tokens of a row of task text, and of a window of measured text."""
SEED = 42
"""Default seed of everything random but an audit's own text, which no training pool may share."""

_GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_FIX_ROW = "correct the row or leave it out"

Columns = dict[str, Any]
TokenRow = tuple[list[int], list[int]]
"""Input ids and labels, of equal length."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One layout of rows."""

    columns: tuple[str, ...]  # that a row of this layout has; others are ignored
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
    """The columns of the row's layout, checked. Raises `SourceError` if the row fits no layout."""
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


def _completion(document: Columns, tokenizer: PreTrainedTokenizerBase, *_: Any) -> Iterator[TokenRow]:
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


def _require_chat(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `ConfigError` if the tokenizer cannot render chats."""
    if not tokenizer.chat_template:
        raise ConfigError(
            "the documents are chats, but the base's tokenizer has no chat template",
            "use an instruct model, or turn the chats into prompt and completion columns",
        )
    if not tokenizer.is_fast:
        raise ConfigError(
            "chats need character offsets of tokens, which the base's slow tokenizer does not have",
            "save it as a tokenizer.json (a fast tokenizer), or use prompt and completion columns",
        )


def _chat(document: Columns, tokenizer: PreTrainedTokenizerBase, *_: Any) -> Iterator[TokenRow]:
    """The rendered chat; trained on is what the assistant says, its end-of-turn tokens included.

    Raises `SourceError` if the chat does not fit the template or starts with an answer, and `ConfigError` for a
    template that renders an answer differently once the chat goes on.
    """
    messages, name = document["messages"], document["document"]
    try:
        if _GENERATION_MARK.search(tokenizer.get_chat_template()):
            tokens = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
            answers = tokens["assistant_masks"]
        else:
            text = _render(messages, tokenizer)
            turns = [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]
            spans = [_answer_span(text, messages, turn, name, tokenizer) for turn in turns]
            tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            offsets = tokens["offset_mapping"]
            answers = [any(begin < last and end > first for first, last in spans) for begin, end in offsets]
    except TemplateError as error:
        raise SourceError(f"{name} does not fit the chat template: {error}", _FIX_ROW) from error
    ids = list(tokens["input_ids"])
    yield ids, [token if answer else IGNORED_LABEL for token, answer in zip(ids, answers, strict=True)]


def _render(messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase, *, ask_for_answer: bool = False) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask_for_answer))


def _answer_span(
    text: str, messages: list[dict[str, str]], turn: int, name: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, int]:
    """Characters of one assistant turn in the rendered chat, from after its opening to its end-of-turn token."""
    if turn == 0:
        raise SourceError(f"{name} starts with an assistant turn, which answers nothing", _FIX_ROW)
    before = _render(messages[:turn], tokenizer, ask_for_answer=True)
    through = _render(messages[: turn + 1], tokenizer)
    if not (text.startswith(through) and through.startswith(before)):
        raise ConfigError(
            f"the chat template renders an answer differently once the chat goes on ({name}, turn {turn + 1})",
            "give one answer per chat (its last turn), or a chat template with {% generation %} marks",
        )
    # Most templates write a line break after the end-of-turn token, which the model does not generate.
    trimmed = through.rstrip()
    closed = any(trimmed.endswith(token) for token in tokenizer.all_special_tokens)
    return len(before), len(trimmed) if closed and len(trimmed) > len(before) else len(through)


# If a row has the columns of several layouts, the first one is used.
LAYOUTS = {
    "messages": Layout(columns=("messages",), check=_messages, tokenize=_chat, require=_require_chat),
    "completion": Layout(
        columns=("prompt", "completion"), check=_strings("prompt", "completion"), tokenize=_completion
    ),
    "text": Layout(
        columns=("text",), check=_strings("text"), tokenize=lambda document, *given: windows(document["text"], *given)
    ),
}
