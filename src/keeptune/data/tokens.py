"""Tokens and labels of plain text: windows of a document, and a completion after its prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypedDict

from transformers import PreTrainedTokenizerBase

IGNORED_LABEL = -100

TokenRow = tuple[list[int], list[int]]
"""Input ids and labels, of equal length."""


class EncodedRow(TypedDict):
    """A row of `encode`, with the name of its document."""

    input_ids: list[int]
    labels: list[int]
    document: str


def windows(
    text: str,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    document_start: int | None,
    *,
    starts: frozenset[int] = frozenset(),
    end: int | None = None,
) -> Iterator[TokenRow]:
    """Consecutive windows of a text; each starts with the last token of the window before.

    `document_start` comes first unless the text itself begins with it or with an id of `starts`; `end` comes last
    unless the text is empty or ends in it. None leaves them out.
    """
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if document_start is not None and not (ids and ids[0] in starts | {document_start}):
        ids = [document_start, *ids]
    if text and end is not None and ids[-1] != end:
        ids = [*ids, end]
    for start in range(0, len(ids) - 1, max_length - 1):
        window = ids[start : start + max_length]
        yield window, list(window)


def completion(document: Mapping[str, object], tokenizer: PreTrainedTokenizerBase, *_: Any) -> Iterator[TokenRow]:
    """Prompt and completion tokenized together: a token that spans the boundary belongs to the completion."""
    prompt = str(document["prompt"])
    prompt_ids, ids = _ids(prompt, tokenizer), _ids(prompt + str(document["completion"]), tokenizer)
    if tokenizer.eos_token_id is not None and (not ids or ids[-1] != tokenizer.eos_token_id):
        ids.append(tokenizer.eos_token_id)
    start = 0
    while start < min(len(prompt_ids), len(ids)) and prompt_ids[start] == ids[start]:
        start += 1
    yield ids, [IGNORED_LABEL] * start + ids[start:]


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Text and id of every special token, also of those without a role such as `eos_token`."""
    added = tokenizer.added_tokens_decoder.items()
    named = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    return {**{token.content: index for index, token in added if token.special}, **dict(named)}


def _ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids as the tokenizer starts and ends any input, without a second BOS or EOS where the text has its own."""
    ids = list(tokenizer(text, verbose=False)["input_ids"])
    if len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
        ids = ids[1:]
    if len(ids) > 1 and ids[-1] == ids[-2] == tokenizer.eos_token_id:
        ids = ids[:-1]
    return ids
