"""How a sampled row starts: as a document does, or as a chat whose first user turn the model then writes itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from keeptune.data.templates import dated, own_template
from keeptune.errors import ConfigError
from keeptune.models.vocabulary import document_start

Prompts = Literal["document", "chat"]
Opening = Sequence[int] | Sequence[Sequence[int]]

# Words that no template contains, without white space at the ends, which templates strip.
_USER_WORDS = "~keeptune~user~words~"


def find_openings(
    tokenizer: Any, prompts: Prompts, start: str | int | Sequence[str | int] | None, length: int
) -> tuple[dict[str, Any], str]:
    """The openings of rows of `length` targets, which start as a chat or as a document (with `start`, if given).

    Returns the fields of `PoolSettings` about openings, and how the start tokens were found, for the log. Raises
    `ConfigError` for no start token, an unknown one, or a chat template without an opening that fits a row.
    """
    opening: list[int] = []
    if prompts == "chat":
        first, *opening = chat_opening(tokenizer)
        if len(opening) >= length:
            raise ConfigError(
                f"the chat template opens with {len(opening) + 1} tokens, and a row has {length + 1}",
                f"use longer rows: --length {2 * len(opening)} or more",
            )
        starts, found = [first], "the chat template up to the user's first words"
    elif start is None or isinstance(start, str | int):
        first, found = document_start(tokenizer, override=start)
        starts = [first]
    else:
        starts = [document_start(tokenizer, override=one)[0] for one in start]
        found = "as given" + ", in turn" * (len(starts) > 1)
    if not starts:
        raise ConfigError("the list of start tokens is empty", "give one or more, or leave start out")
    fields: dict[str, Any] = {"start_token": starts[0], "more_starts": starts[1:], "opening": opening}
    fields["start_text"] = tokenizer.convert_ids_to_tokens(starts[0])
    fields["prompts"] = "document start" if prompts == "document" else "chat"
    return fields, found


def chat_opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that the chat template puts before a user's first words.

    A chat model continues them with the user's turn and then with the answer (Magpie, arXiv 2406.08464). Raises
    `ConfigError` if there is no chat template, or no such opening.
    """
    fix = "start rows as documents instead (--prompts document)"
    if not tokenizer.chat_template:
        raise ConfigError("the tokenizer has no chat template to open a chat with", fix)
    turn, template = [{"role": "user", "content": _USER_WORDS}], own_template(tokenizer)
    try:
        text = str(tokenizer.apply_chat_template(turn, chat_template=dated(template), tokenize=False))
    except TemplateError as error:
        raise ConfigError(f"the chat template cannot render a user's turn: {error}", fix) from error
    before, words, _ = text.partition(_USER_WORDS)
    opening: list[int] = tokenizer(before, add_special_tokens=False)["input_ids"]
    if not words or not opening:
        raise ConfigError("the chat template puts nothing before a user's words, or changes them", fix)
    return opening
