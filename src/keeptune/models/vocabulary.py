"""Tokens by id: the token that starts a document, and whether two models share a vocabulary."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from keeptune.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SHOWN_TOKENS = 5
_START_NAMES = ("<|endoftext|>", "<|begin_of_text|>", "<s>", "<bos>", "<|startoftext|>")
_CHAT_TOKEN = re.compile(r"im_|turn|header|role|user|assistant|system|inst", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Vocabularies:
    """How the vocabularies of two models compare."""

    words: int  # ids below this number have an output in both models
    differing: dict[int, tuple[str | None, str | None]]  # by id: the base's and the tuned model's token, None for none
    sizes: tuple[int, int]  # outputs of the base and of the tuned model

    @property
    def same(self) -> bool:
        """Whether both models have the same tokens and the same number of outputs."""
        return not self.differing and self.sizes[0] == self.sizes[1]

    def __str__(self) -> str:
        """The sizes and the first differing tokens, for error messages."""
        named = [f"{index}: {left!r} and {right!r}" for index, (left, right) in sorted(self.differing.items())]
        more = f" and {len(named) - _SHOWN_TOKENS} more" if len(named) > _SHOWN_TOKENS else ""
        tokens = f"; tokens that differ, {', '.join(named[:_SHOWN_TOKENS])}{more}" if named else ""
        return f"{self.sizes[0]} and {self.sizes[1]} outputs{tokens}"


def vocabularies(
    base: PreTrainedModel,
    tuned: PreTrainedModel,
    base_tokenizer: PreTrainedTokenizerBase,
    tuned_tokenizer: PreTrainedTokenizerBase,
) -> Vocabularies:
    """Compare two models' tokens by id."""
    sizes = (outputs_of(base), outputs_of(tuned))
    tokenizers = (base_tokenizer, tuned_tokenizer)
    left, right = ({index: token for token, index in tokenizer.get_vocab().items()} for tokenizer in tokenizers)
    pairs = {index: (left.get(index), right.get(index)) for index in left.keys() | right.keys()}
    differing = {index: (own, other) for index, (own, other) in pairs.items() if own != other}
    return Vocabularies(words=min(sizes), differing=differing, sizes=sizes)


def check_vocabularies(found: Vocabularies) -> None:
    """Raise `ConfigError` if the vocabularies differ."""
    if not found.same:
        raise ConfigError(
            f"the models have different vocabularies ({found})",
            "compare a tuned model with the base that it was tuned from, or add --shared-vocabulary to compare the "
            "models on the tokens and texts that they share",
        )


def share_vocabulary(base: PreTrainedModel, tuned: PreTrainedModel, found: Vocabularies) -> None:
    """Cut both models' outputs to the ids below `found.words`. Raises `ConfigError` if most tokens differ."""
    if sum(index < found.words for index in found.differing) > found.words // 2:
        raise ConfigError(
            f"the models split text into different tokens ({found})", "compare models that share a tokenizer"
        )
    for model in (base, tuned):
        if outputs_of(model) > found.words:
            model.resize_token_embeddings(found.words, mean_resizing=False)


def outputs_of(model: PreTrainedModel) -> int:
    """How many tokens a model predicts, also where its output layer is quantized."""
    layer = model.get_output_embeddings()
    shape: list[int] = list(getattr(getattr(layer, "weight", None), "shape", ()))
    # A quantized layer packs its weight, or has none of its own, and says how many outputs it has.
    plain = len(shape) == 2 and shape[1] == getattr(layer, "in_features", shape[1])
    return int(shape[0] if plain else layer.out_features)


def document_start(tokenizer: PreTrainedTokenizerBase, override: str | int | None = None) -> tuple[int, str]:
    """Find the token that starts a document in pretraining text.

    The `bos_token` of instruct models is often a chat token, which starts a turn and not a document.

    `override` is the text or id of the token, chosen by the user. Returns the token's id, and one line that says how
    the token was found. Raises `ConfigError` if the override is not in the vocabulary, or no token was found.
    """
    vocabulary, size = tokenizer.get_vocab(), len(tokenizer)
    if override is not None:
        index = vocabulary.get(override, -1) if isinstance(override, str) else override
        if isinstance(override, bool) or not 0 <= index < size:
            raise ConfigError(
                f"the document start {override!r} is not in the vocabulary of {size} tokens",
                "give the text of one token exactly as in the vocabulary, or its id",
            )
        return index, f"document start: {tokenizer.convert_ids_to_tokens(index)}, as given"
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    special |= set(tokenizer.all_special_tokens)
    bos = tokenizer.bos_token
    trusted = bos is not None and (bos in _START_NAMES or not _is_chat_token(tokenizer, bos))
    if trusted and vocabulary.get(bos, size) < size:
        return vocabulary[bos], f"document start: {bos}, the tokenizer's bos_token"
    flaw = "a chat token" if not trusted else "beyond the model's vocabulary"
    why_not = "the tokenizer has no bos_token" if bos is None else f"bos_token {bos} is {flaw}"
    for name in _START_NAMES:
        if name in special and vocabulary.get(name, size) < size:
            return vocabulary[name], f"document start: {name}, found by name ({why_not})"
    eos = tokenizer.eos_token
    if vocabulary.get(eos, size) < size:
        return vocabulary[eos], f"document start: {eos}, the eos_token, as no better token was found ({why_not})"
    raise ConfigError(
        "the tokenizer has neither a token that starts a document nor an eos_token",
        "name the token with --document-start TOKEN",
    )


def _is_chat_token(tokenizer: PreTrainedTokenizerBase, token: str) -> bool:
    template = tokenizer.chat_template
    templates = template.values() if isinstance(template, dict) else (template or "",)
    return bool(_CHAT_TOKEN.search(token)) or any(token in text for text in templates)
