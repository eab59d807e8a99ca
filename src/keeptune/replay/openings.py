"""What a sample starts from: the start of a document, or of a chat whose every word the model then writes itself."""

from __future__ import annotations

from typing import Literal

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from keeptune.errors import ConfigError

Prompts = Literal["document", "chat"]

# Words no template knows, without white space at their ends, which templates strip.
_USER_WORDS = "~keeptune~user~words~"


def chat_opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that the chat template puts before a user's first words: a chat model goes on with the user's turn, and
    then with the answer (Magpie, arXiv 2406.08464).

    Raises:
        ConfigError: no chat template, or one that does not begin so.
    """
    fix = "write from the start of a document instead (--prompts document)"
    if not tokenizer.chat_template:
        raise ConfigError("the tokenizer has no chat template to open a chat with", fix)
    turn = [{"role": "user", "content": _USER_WORDS}]
    try:
        text = str(tokenizer.apply_chat_template(turn, tokenize=False))
    except TemplateError as error:
        raise ConfigError(f"the chat template cannot render a user's turn: {error}", fix) from error
    before, words, _ = text.partition(_USER_WORDS)
    opening: list[int] = tokenizer(before, add_special_tokens=False)["input_ids"]
    if not words or not opening:
        raise ConfigError("the chat template puts nothing before a user's words, or changes them", fix)
    return opening
