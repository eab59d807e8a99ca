"""A pool of real text: old data on which the base's predictions are to stay as they are.

What the base writes on its own needs no data; real text holds what it only shows when it reads. Under KL the two forget
alike, .0028 and .0029 nats per token (Marek et al. 2026, arXiv 2605.26097).

Shapes: R rows, T targets a row.
"""

from __future__ import annotations

import hashlib
import math
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from keeptune.data.documents import load_documents
from keeptune.data.encode import whole_rows
from keeptune.errors import ConfigError
from keeptune.log import logger, track
from keeptune.models.adapters import causal_model, evaluating
from keeptune.models.modeling import training_dtype
from keeptune.models.vocabulary import document_start
from keeptune.replay.generate import append_shards, base_settings
from keeptune.replay.pool import PoolSettings, Predictions, ReplayPool, start_pool

# Read and written together; a kill loses at most these.
_ROWS_PER_SHARD = 64


def text_pool(
    model: nn.Module,
    tokenizer: Any,
    folder: str | Path,
    tokens_RT1: Tensor,
    *,
    source: str,
    dtype: torch.dtype | None = None,
    predictions: Predictions = "hidden",
    top_k: int = 64,
) -> ReplayPool:
    """Keep the base's predictions on rows of real text in `folder`; resumes an unfinished pool of the same rows.

    Args:
        model: the base, before any fine-tuning, on its device.
        tokenizer: its tokenizer.
        tokens_RT1: integer [R, T + 1], each row the document-start token and then T tokens, each a target; `text_rows`
            cuts them. The last rows are kept for the meter and the certificate.
        source: the text's name, as the pool and the readings on it will give it.
        dtype: of the stored states; default the one that training multiplies in.
        predictions: what to keep of the base's predictions: `hidden` states (exact), the `topk` words (small), `none`.
        top_k: words to keep of each, with topk.

    Raises:
        OutputExists: `folder` holds something else, such as a pool of other rows.
        ConfigError: rows that are none, or an architecture whose logits cannot be rebuilt from its hidden states.
    """
    dtype = dtype or training_dtype(model)
    start_token = _start_of(tokens_RT1, causal_model(model).get_output_embeddings().weight.shape[0])
    tokens_RT1 = tokens_RT1.to("cpu", torch.int64)
    settings = PoolSettings(
        start_token=start_token,
        start_text=tokenizer.convert_ids_to_tokens(start_token),
        length=tokens_RT1.shape[1] - 1,
        rows_per_shard=_ROWS_PER_SHARD,
        seed=0,
        sampling=f"real text from {source}",
        text_sha256=hashlib.sha256(tokens_RT1.numpy().tobytes()).hexdigest(),
        **base_settings(model, dtype, predictions, top_k),
    )
    pool = start_pool(Path(folder), settings, len(tokens_RT1))
    causal = causal_model(model)
    with evaluating(causal), track("The base reads the text", pool.rows, "rows") as progress:
        progress.skip(pool.rows_written)

        def read(rows: range) -> Tensor:
            progress.advance(pool.rows_written - progress.done)
            return tokens_RT1[rows.start : rows.stop]

        append_shards(pool, causal, dtype, read)
        progress.advance(pool.rows - progress.done)
    return ReplayPool.open(folder)


def text_rows(
    source: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tokens: int,
    length: int,
    seed: int = 0,
    start: str | int | None = None,
) -> Tensor:
    """Rows for `text_pool` from documents in random order: at least `tokens` targets, or all that there are.

    The rows of a document stay together, so the last ones, which are kept for the meter, come from documents that
    training does not see, but for the one where the cut falls.

    Args:
        source: as of `keeptune.load_documents`, documents of plain text.
        length: targets in a row; the rest of a document after its last whole row is left out.
        seed: of the documents' order.
        start: the document-start token, as text or id, where the one found is not the right one.

    Returns:
        int64 [R, T + 1].

    Raises:
        SourceError: no such text.
        ConfigError: no document is as long as a row, or they are prompts or chats.
    """
    documents = load_documents(source)
    token, _ = document_start(tokenizer, override=start)
    order = torch.randperm(len(documents), generator=torch.Generator().manual_seed(seed))
    wanted = math.ceil(tokens / length)
    with closing(whole_rows(documents.select(order.tolist()), tokenizer, length=length, document_start=token)) as cut:
        rows = [row for _, row in islice(cut, wanted)]
    if not rows:
        raise ConfigError(
            f"no document of {source} has {length} tokens for a row", "give longer documents, or a lower --length"
        )
    if len(rows) < wanted:
        logger.warning(
            f"{source} gives {len(rows)} rows of {length} tokens, and {wanted} were asked for: the pool holds these"
        )
    return torch.tensor(rows)


def _start_of(tokens_RT1: Tensor, vocabulary: int) -> int:
    """The token that every row starts with."""
    fix = "give int64 [rows, length + 1] from keeptune.replay.text.text_rows, or rows that start alike"
    if tokens_RT1.ndim != 2 or tokens_RT1.is_floating_point() or not len(tokens_RT1) or tokens_RT1.shape[1] < 3:
        raise ConfigError(f"a tensor {list(tokens_RT1.shape)} of {tokens_RT1.dtype} is no rows of tokens", fix)
    if tokens_RT1.min() < 0 or tokens_RT1.max() >= vocabulary:
        raise ConfigError(f"the rows hold ids outside the base's vocabulary of {vocabulary}", fix)
    first = int(tokens_RT1[0, 0])
    if (tokens_RT1[:, 0] != first).any():
        raise ConfigError("the rows start with different tokens, and not all with the document start", fix)
    return first
