"""Chats as tokens: the chat template rendered, and which tokens are the assistant's answers."""

from __future__ import annotations

import re

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from keeptune.errors import ConfigError, SourceError

_GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_FIX_ROW = "correct the row or leave it out"


def require_chat(tokenizer: PreTrainedTokenizerBase) -> None:
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


def chat_tokens(
    messages: list[dict[str, str]], name: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[bool]]:
    """The ids of a rendered chat, and for each id whether the assistant says it (its end-of-turn token included).

    Args:
        name: the document's name, for errors.

    Raises:
        SourceError: the chat does not fit the template, or starts with an answer.
        ConfigError: a template that renders an answer differently once the chat goes on.
    """
    try:
        if _GENERATION_MARK.search(tokenizer.get_chat_template()):
            marked = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
            return list(marked["input_ids"]), [bool(answer) for answer in marked["assistant_masks"]]
        text = _render(messages, tokenizer)
        spans = [
            _answer_span(text, messages, turn, name, tokenizer)
            for turn, message in enumerate(messages)
            if message["role"] == "assistant"
        ]
    except TemplateError as error:
        raise SourceError(f"{name} does not fit the chat template: {error}", _FIX_ROW) from error
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    answers = [
        any(begin < span_end and end > span_start for span_start, span_end in spans)
        for begin, end in tokens["offset_mapping"]
    ]
    return list(tokens["input_ids"]), answers


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
