"""Old text of the user's own, on which the meter in the loop reads drift in place of the base's own text."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from keeptune.data.documents import load_documents
from keeptune.data.encode import whole_rows
from keeptune.errors import ConfigError
from keeptune.models.vocabulary import document_start
from keeptune.stats import evenly_spaced
from keeptune.train.config import KeepConfig


def old_text(source: str, tokenizer: PreTrainedTokenizerBase, keep: KeepConfig) -> Tensor:
    """The first `replay_length` targets of `drift_rows` documents at most, spread over all that are long enough.

    Returns:
        int64 [B, T + 1], as the tokens of a pool's rows.

    Raises:
        SourceError: no such text.
        ConfigError: no document is as long as a row, or they are prompts or chats.
    """
    start, _ = document_start(tokenizer, override=keep.document_start)
    firsts: dict[str, list[int]] = {}
    for document, ids in whole_rows(load_documents(source), tokenizer, length=keep.replay_length, document_start=start):
        firsts.setdefault(document, ids)
    long_enough = list(firsts.values())
    if not long_enough:
        raise ConfigError(
            f"no document of {source} has {keep.replay_length} tokens to read drift on",
            "give longer documents, or lower replay_length",
        )
    return torch.tensor([long_enough[place] for place in evenly_spaced(len(long_enough), keep.drift_rows)])
