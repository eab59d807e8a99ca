"""How a prompt is put to a model: as a user's turn where its tokenizer has a chat template, else as plain text."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from keeptune.errors import ConfigError


def style_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Which of both it is, in words."""
    return (
        "a user's turn in the chat template" if tokenizer.chat_template else "plain text: the prompt and a line break"
    )


def rendered(tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """The text after which an answer begins.

    Raises:
        ConfigError: the chat template cannot render a user's turn.
    """
    if not tokenizer.chat_template:
        return f"{prompt}\n"
    turn = [{"role": "user", "content": prompt}]
    try:
        return str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        raise ConfigError(
            f"the chat template cannot render a prompt: {error}",
            "correct the chat template in the model's folder, or remove it to be asked plainly",
        ) from error


def tokenised(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts that start as `rendered` gave them; a chat template writes a document's start itself."""
    start = not tokenizer.chat_template
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=start, verbose=False)["input_ids"]
    return ids
