"""Readings of a run: drift from the base on held-out rows, and the held-out task loss.

Shapes: B rows, T positions, N target tokens, M measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from keeptune.data.documents import load_documents
from keeptune.data.encode import whole_rows
from keeptune.errors import ConfigError
from keeptune.models.modeling import head_of, hidden_states
from keeptune.models.vocabulary import document_start
from keeptune.objective import fused_next_token_ce
from keeptune.objective.drift import MEASURES, token_drift
from keeptune.replay.pool import ReplayBatch
from keeptune.stats import evenly_spaced
from keeptune.train.config import KeepConfig
from keeptune.train.context import KeepContext

_ROWS_AT_ONCE = 16
_READ = ("input_ids", "labels", "position_ids")


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
    device = context.host.device
    head = head_of(model)
    for inputs_BT, targets_BT, hidden_BTD in zip(
        batch.inputs_BT.split(_ROWS_AT_ONCE),
        batch.targets_BT.split(_ROWS_AT_ONCE),
        batch.hidden_BTD.split(_ROWS_AT_ONCE),
        strict=True,
    ):
        tuned_ND = hidden_states(model, inputs_BT.to(device)).flatten(0, 1).to(hidden_BTD.dtype)
        yield token_drift(
            tuned_ND,
            head,
            hidden_BTD.flatten(0, 1).to(device),
            context.base_head,
            targets_BT.flatten().to(device),
            dtype=context.host.dtype,
        )


def token_loss(
    model: nn.Module, dataset: Any, collate: Callable[[Any], Any], rows: int, device: torch.device
) -> float | None:
    """Mean cross-entropy over the loss-bearing tokens of a data set, or of a dict of them; nats per token.

    Every process reads all of it: a sharded loader repeats rows to fill its last batches.

    Returns:
        None without a data set, or where its batches have no labels (preference pairs, prompts).
    """
    total, count = 0.0, 0
    head = head_of(model)
    for batch in _batches(dataset, collate, rows):
        if not (isinstance(batch, dict) or hasattr(batch, "keys")) or "labels" not in batch:
            return None
        batch = {key: batch[key].to(device) for key in _READ if key in batch}
        labels_BT = batch["labels"]
        mask_BT: Tensor = labels_BT[:, 1:] != -100
        hidden_ND = hidden_states(model, batch["input_ids"], batch.get("position_ids"))[:, :-1][mask_BT]
        total += fused_next_token_ce(hidden_ND, head, labels_BT[:, 1:][mask_BT]).item()
        count += int(mask_BT.sum())
    return total / count if count else None


def _batches(dataset: Any, collate: Callable[[Any], Any], rows: int) -> Iterable[Any]:
    sets = [] if dataset is None else list(dataset.values()) if isinstance(dataset, dict) else [dataset]
    # A loader draws a seed, and the global generator belongs to training: without this, reading would change dropout.
    own = torch.Generator()
    for one in sets:
        yield from DataLoader(one, batch_size=rows, collate_fn=collate, generator=own)


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
    for document, ids in whole_rows(load_documents(source), tokenizer, length=keep.replay_length, document_start=start):
        firsts.setdefault(document, ids)
    long_enough = list(firsts.values())
    if not long_enough:
        raise ConfigError(
            f"no document of {source} has {keep.replay_length} tokens to read drift on",
            "use longer documents, or lower replay_length",
        )
    rows = [long_enough[place] for place in evenly_spaced(len(long_enough), keep.drift_rows)]
    return ReplayBatch(tokens_BT1=torch.tensor(rows))
