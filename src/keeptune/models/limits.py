"""Sizes that a model and its tokenizer bound: positions of a row, ids of tokens, the ends of texts."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.models.adapters import causal_model, evaluating
from keeptune.models.anatomy import idle_modules
from keeptune.models.guarded import first_line
from keeptune.models.modeling import hidden_states

_POSITIONS = re.compile(r"(^|[._])(wpe|pos|positions?)([._]|$)|pos_enc|embed_positions|positions?_embed")
_DECLARED = ("max_position_embeddings", "max_seq_len", "n_positions", "seq_length")


def check_sizes(model: nn.Module, tokenizer: Any, longest: int, rows: str = "rows") -> None:
    """Refuse a tokenizer that does not fit the model, and rows that are longer than the model can read.

    Rows beyond what a model was trained for, but can compute (rotary positions), are only warned about.

    Args:
        longest: tokens of the longest row that the model will read.
        rows: what the rows are, for the messages.

    Raises:
        ConfigError: a tokenizer with ids that the model has no embedding for, or with neither a pad token nor an
            end-of-text token; or rows longer than the model's learned positions.
    """
    check_tokenizer(model, tokenizer)
    check_length(model, longest, rows)


def check_tokenizer(model: nn.Module, tokenizer: Any) -> None:
    """Refuse a tokenizer whose ids the model cannot embed, or whose texts have no end. Raises `ConfigError`."""
    tokenizer = getattr(tokenizer, "tokenizer", None) or tokenizer  # of a vision model's processor
    causal = causal_model(model)
    embeddings = causal.get_input_embeddings().weight.shape[0]
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= embeddings:
        raise ConfigError(
            f"the tokenizer has ids up to {largest}, and {type(causal).__name__} embeds {embeddings} tokens",
            "use the tokenizer that was saved with the model, or resize the model"
            f" (model.resize_token_embeddings({largest + 1})) and save it",
        )
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
        raise ConfigError(
            "the tokenizer has neither a pad_token nor an eos_token, so rows can be neither padded nor ended",
            "set tokenizer.eos_token (or pad_token) to a token of its vocabulary, and save it with the model",
        )


def check_length(model: nn.Module, longest: int, rows: str = "rows") -> None:
    """Refuse rows longer than the model's learned positions. Raises `ConfigError`."""
    causal = causal_model(model)
    limit, declared = learned_positions(causal), declared_positions(causal)
    name, reason = type(causal).__name__, ""
    if limit is None and declared is not None and longest > declared:
        reason = _reading_fails(causal, longest)
        limit = declared if reason else None
    if limit is not None and longest > limit:
        raise ConfigError(
            f"{rows} of {longest} tokens are longer than the {limit} positions of {name}{reason}",
            f"use {rows} of at most {limit} tokens (--length, --replay-length, --max-length, or length in Python)",
        )
    if declared is not None and longest > declared:
        logger.warning(
            f"{rows} of {longest} tokens are longer than those that {name} was trained on"
            f" (max_position_embeddings is {declared}): its predictions there may be poor"
        )


def declared_positions(model: nn.Module) -> int | None:
    """The longest row that the model was made for, by its configuration; None if that names none."""
    config = causal_model(model).config.get_text_config()
    return next((value for name in _DECLARED if (value := whole_number(config, name))), None)


def whole_number(config: Any, name: str) -> int | None:
    """A configuration's value above 0; None if it has none, or another one in each layer."""
    try:
        value = getattr(config, name, None)
    except RuntimeError:  # transformers', for a value that differs by layer
        return None
    return value if isinstance(value, int) and value > 0 else None


def learned_positions(model: nn.Module) -> int | None:
    """The number of positions that a model has a vector for; None if it computes positions, or has none.

    Found as a table of vectors whose name says so, beside the embedding of tokens. A table may begin with rows that are
    no positions (OPT's `offset`).
    """
    causal = causal_model(model)
    tokens, sizes = causal.get_input_embeddings(), {}
    for name, module in causal.named_modules():
        if isinstance(module, nn.Embedding) and module is not tokens and _POSITIONS.search(name):
            before = getattr(module, "offset", 0 if module.padding_idx is None else module.padding_idx + 1)
            sizes[name] = module.num_embeddings - before
    for name, buffer in causal.named_buffers():
        own = name.rpartition(".")[2]
        if buffer.ndim == 2 and buffer.is_floating_point() and _POSITIONS.search(own):
            sizes[name] = buffer.shape[0]
    # A vision tower's tables are of patches, which text does not run through.
    idle = tuple(f"{name}." for name in idle_modules(causal)) if sizes else ()
    return min((size for name, size in sizes.items() if not f"{name}.".startswith(idle)), default=None)


@torch.no_grad()
def _reading_fails(causal: Any, longest: int) -> str:
    """Why the model cannot read a row of so many tokens, tried on one; empty if it can."""
    device = causal.get_input_embeddings().weight.device
    try:
        with evaluating(causal):
            hidden_states(causal, torch.zeros(1, longest, dtype=torch.int64, device=device))
    except (IndexError, RuntimeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            return ""
        return f" ({first_line(error)})"
    return ""
