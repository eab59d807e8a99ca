"""From documents to token windows: which tokens the model reads, and which of them it is trained on.

`labels` stand at the position of their own token, as in `input_ids`; -100 means no loss. The shift by one belongs
to the loss.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import Any

from datasets import Dataset
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from keeptune.errors import ConfigError, SourceError
from keeptune.log import logger, track

IGNORED_LABEL = -100

_GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_Row = tuple[list[int], list[int]]


def encode(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, *, max_length: int, document_start: int | None
) -> Dataset:
    """Tokenise documents for training.

    Text is cut into consecutive windows of up to `max_length` tokens; a window starts with the last token of the one
    before, so that each token but the first of a document is a target exactly once. Prompts with completions and
    chats stay whole: those longer than `max_length` are left out, and their number is said.

    Args:
        dataset: what `load_documents` returned.
        tokenizer: the base's tokenizer.
        max_length: context in tokens, 2 at least.
        document_start: id of the token put before each text, or None for none. Prompts start as the tokenizer
            starts any input, and chats as the chat template says.

    Returns:
        Columns `input_ids` and `labels` (lists of int of equal length) and `document` (str), in the given order.

    Raises:
        ConfigError: `max_length` is too small, or chats meet a tokenizer that cannot render them.
        SourceError: nothing is left to train on.
    """
    if max_length < 2:
        raise ConfigError(f"a context of {max_length} tokens has nothing to predict", "use 2 or more")
    if "messages" in dataset.column_names:
        _require_chat(tokenizer)
    columns: dict[str, list[Any]] = {"input_ids": [], "labels": [], "document": []}
    too_long: list[int] = []
    without_loss = 0
    with track("tokenising", len(dataset), "documents") as task:
        for document in dataset:
            name = document["document"]
            kept = 0
            for input_ids, labels in _rows(document, name, tokenizer, max_length, document_start):
                if len(input_ids) > max_length:
                    too_long.append(len(input_ids))
                elif any(label != IGNORED_LABEL for label in labels[1:]):
                    columns["input_ids"].append(input_ids)
                    columns["labels"].append(labels)
                    columns["document"].append(name)
                else:
                    continue
                kept += 1
            without_loss += kept == 0
            task.advance()
    _report(len(dataset), len(columns["document"]), too_long, without_loss, max_length)
    return Dataset.from_dict(columns)


def whole_rows(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, *, length: int, document_start: int
) -> Generator[tuple[str, list[int]]]:
    """Cut text into rows of one length, for replay and for the meter.

    Each document is cut into consecutive pieces of `length` tokens; what is left after the last whole one is left out.

    Yields:
        The document's name and `length` + 1 ids: `document_start`, then the piece.

    Raises:
        ConfigError: the documents are prompts or chats, which cannot be cut.
    """
    if "text" not in dataset.column_names:
        raise ConfigError(
            f"documents of {' and '.join(n for n in dataset.column_names if n != 'document')} cannot be cut into rows",
            "give documents of plain text (a column text)",
        )
    with track("tokenising", len(dataset), "documents") as task:
        for document in dataset:
            for window, _ in _windows(document["text"], tokenizer, length + 1, document_start):
                if len(window) == length + 1:
                    yield document["document"], [document_start, *window[1:]]
            task.advance()


def _report(documents: int, rows: int, too_long: list[int], without_loss: int, max_length: int) -> None:
    if not rows and too_long:
        raise SourceError(
            f"every row is longer than the context of {max_length} tokens",
            f"raise --max-length to at least {min(too_long)} (the longest row needs {max(too_long)})",
        )
    if not rows:
        raise SourceError(
            "no document has a token to predict", "give documents with text, completions or assistant turns"
        )
    if too_long:
        logger.warning(f"left out {len(too_long)} of {documents} rows: longer than the context of {max_length} tokens")
    if without_loss:
        logger.warning(f"left out {without_loss} of {documents} documents: no token to predict")


def _rows(
    document: dict[str, Any],
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    document_start: int | None,
) -> Iterator[_Row]:
    if "messages" in document:
        yield _chat_row(document["messages"], name, tokenizer)
    elif "prompt" in document:
        yield _completion_row(document["prompt"], document["completion"], tokenizer)
    else:
        yield from _windows(document["text"], tokenizer, max_length, document_start)


def _windows(
    text: str, tokenizer: PreTrainedTokenizerBase, max_length: int, document_start: int | None
) -> Iterator[_Row]:
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if document_start is not None:
        ids = [document_start, *ids]
    for start in range(0, len(ids) - 1, max_length - 1):
        window = ids[start : start + max_length]
        yield window, list(window)


def _completion_row(prompt: str, completion: str, tokenizer: PreTrainedTokenizerBase) -> _Row:
    """Tokenise prompt and completion together: a token that spans the boundary belongs to the completion."""
    prompt_ids = tokenizer(prompt, verbose=False)["input_ids"]
    ids = list(tokenizer(prompt + completion, verbose=False)["input_ids"])
    if tokenizer.eos_token_id is not None and (not ids or ids[-1] != tokenizer.eos_token_id):
        ids.append(tokenizer.eos_token_id)
    start = 0
    while start < min(len(prompt_ids), len(ids)) and prompt_ids[start] == ids[start]:
        start += 1
    return ids, [IGNORED_LABEL] * start + ids[start:]


def _require_chat(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.chat_template:
        raise ConfigError(
            "the documents are chats, but the base's tokenizer has no chat template",
            "use an instruct model, or turn the chats into prompt and completion columns",
        )
    if not tokenizer.is_fast:
        raise ConfigError(
            "the base's tokenizer cannot tell which characters a token covers, which chats need",
            "save it as a tokenizer.json (a fast tokenizer), or use prompt and completion columns",
        )


def _chat_row(messages: list[dict[str, str]], name: str, tokenizer: PreTrainedTokenizerBase) -> _Row:
    template = tokenizer.get_chat_template()
    try:
        if _GENERATION_MARK.search(template):
            marked = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
            ids, mask = list(marked["input_ids"]), marked["assistant_masks"]
            return ids, [token if ours else IGNORED_LABEL for token, ours in zip(ids, mask, strict=True)]
        text = _render(messages, tokenizer)
        spans = [
            _assistant_span(text, messages, turn, name, tokenizer)
            for turn, message in enumerate(messages)
            if message["role"] == "assistant"
        ]
    except TemplateError as error:
        raise SourceError(
            f"{name} does not fit the chat template: {error}", "correct the row or leave it out"
        ) from error
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = list(tokens["input_ids"])
    labels = [
        token if any(begin < end_of_span and end > start for start, end_of_span in spans) else IGNORED_LABEL
        for token, (begin, end) in zip(ids, tokens["offset_mapping"], strict=True)
    ]
    return ids, labels


def _render(messages: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase, *, ask_for_answer: bool = False) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask_for_answer))


def _assistant_span(
    text: str, messages: list[dict[str, str]], turn: int, name: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, int]:
    """Characters of one assistant turn in the rendered chat, from after its opening to its end-of-turn token."""
    if turn == 0:
        raise SourceError(
            f"{name} starts with an assistant turn: nothing asks for it", "correct the row or leave it out"
        )
    before = _render(messages[:turn], tokenizer, ask_for_answer=True)
    through = _render(messages[: turn + 1], tokenizer)
    if not (text.startswith(through) and through.startswith(before)):
        raise ConfigError(
            f"the chat template renders an answer differently once the chat goes on ({name}, turn {turn + 1})",
            "give one answer per chat (its last turn), or a chat template with {% generation %} marks",
        )
    # What follows the end-of-turn token (most templates write a line break) is not the model's to say.
    trimmed = through.rstrip()
    closed = any(trimmed.endswith(token) for token in tokenizer.all_special_tokens)
    return len(before), len(trimmed) if closed and len(trimmed) > len(before) else len(through)
