"""Readings of a run: drift from the base on held-out rows.

Shapes: B rows, T positions, N target tokens, M measures.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from keeptune.data.documents import load_documents
from keeptune.data.encode import whole_rows
from keeptune.errors import ConfigError
from keeptune.models.modeling import head_of, hidden_states
from keeptune.models.vocabulary import document_start
from keeptune.objective import Head
from keeptune.objective.drift import MEASURES, token_drift
from keeptune.replay.batch import ReplayBatch
from keeptune.stats import evenly_spaced
from keeptune.train.config import KeepConfig
from keeptune.train.context import KeepContext

_ROWS_AT_ONCE = 16


def read_drift(context: KeepContext, batch: ReplayBatch) -> dict[str, float]:
    """Means of every measure of `keeptune.objective.drift.MEASURES` over a batch, nats per token.

    The model must be in evaluation mode, without gradients. All processes must call it.
    """

    def sums(model: nn.Module) -> Tensor:
        sums_M = torch.zeros(len(MEASURES), dtype=torch.float64)
        for values_NM in drift_of_tokens(model, context, batch):
            sums_M += values_NM.sum(dim=0).cpu()
        return sums_M

    means = (context.host.call(sums) / batch.targets_BT.numel()).tolist()
    return dict(zip(MEASURES, means, strict=True))


def drift_of_tokens(model: nn.Module, context: KeepContext, batch: ReplayBatch) -> Iterator[Tensor]:
    """The measures at every target of a batch with the base's hidden states, fp64 [N, M], a few rows at a time."""
    host = context.host
    return drift_from(context.base_head, model, batch, device=host.device, dtype=host.dtype)


def drift_from(
    base_head: Head, model: nn.Module, batch: ReplayBatch, *, device: torch.device, dtype: torch.dtype
) -> Iterator[Tensor]:
    """The measures of a model's drift from the one whose hidden states are in the batch, fp64 [N, M], by a few rows.

    `base_head` is the output layer of that model; `dtype` is that of the products.
    """
    head = head_of(model)
    for rows in batch.split(_ROWS_AT_ONCE):
        tuned_ND = rows.at_targets(hidden_states(model, rows.inputs_BP.to(device)))
        yield token_drift(
            tuned_ND.to(rows.hidden_BTD.dtype),
            head,
            rows.hidden_BTD.flatten(0, 1).to(device),
            base_head,
            rows.targets_BT.flatten().to(device),
            dtype=dtype,
        )


def drift_text_rows(source: str, tokenizer: PreTrainedTokenizerBase, keep: KeepConfig) -> ReplayBatch:
    """Rows of a text on which drift is read in place of the pool's.

    Returns:
        The first `replay_length` targets of at most `drift_rows` documents, evenly spaced over all long enough ones.

    Raises:
        SourceError: no such text.
        ConfigError: no document is as long as a row, or the documents are prompts or chats.
    """
    start, _ = document_start(tokenizer, override=keep.document_start)
    firsts: dict[str, list[int]] = {}
    documents = load_documents(source, skip_bad_rows=keep.skip_bad_rows)
    for document, ids in whole_rows(documents, tokenizer, length=keep.replay_length, document_start=start):
        firsts.setdefault(document, ids)
    long_enough = list(firsts.values())
    if not long_enough:
        raise ConfigError(
            f"no document of {source} has {keep.replay_length} tokens to read drift on",
            "use longer documents, or lower replay_length",
        )
    rows = [long_enough[place] for place in evenly_spaced(len(long_enough), keep.drift_rows)]
    return ReplayBatch(tokens_BW=torch.tensor(rows))
