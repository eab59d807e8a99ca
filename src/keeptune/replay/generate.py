"""Make a pool: rows that an engine samples from the base, or real text, with the base's predictions on them.

Sampled text needs no data. Real text covers what a model shows only when it reads. With the KL objective both protect
alike: 0.0028 and 0.0029 nats per token of forgetting (Marek et al. 2026, arXiv 2605.26097).

Shapes: R rows, T targets per row, W tokens of a row with its opening, N rows of one length of opening.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from keeptune.data.encode import text_rows
from keeptune.data.rows import ROW_LENGTH, SEED
from keeptune.errors import ConfigError
from keeptune.log import track
from keeptune.models.adapters import causal_model, evaluating, without_adapter
from keeptune.models.limits import check_length, check_sizes
from keeptune.models.modeling import training_dtype
from keeptune.models.quantized import settle
from keeptune.replay.batch import open_rows
from keeptune.replay.begin import Sampling, base_settings, begin_sampled, start_pool, vocabulary_of
from keeptune.replay.diversity import check_diversity
from keeptune.replay.engines import Engine, EngineMaker
from keeptune.replay.manifest import DEFAULT_ENGINE, Opening, PoolSettings, Predictions
from keeptune.replay.openings import Prompts, find_openings, recorded_openings
from keeptune.replay.pool import ReplayPool
from keeptune.replay.ranks import together
from keeptune.replay.write import log_start, sample_rows, write_shards

# Rows of real text that are read and written together; a kill loses at most these.
_TEXT_ROWS_PER_SHARD = 64


@without_adapter
def sample_pool(
    model: nn.Module,
    tokenizer: Any,
    folder: str | Path,
    *,
    tokens: int,
    length: int = ROW_LENGTH,
    seed: int = SEED,
    start: str | int | Sequence[str | int] | None = None,
    prompts: Prompts = "document",
    opening: Opening = "auto",
    temperature: float = 1.0,
    dtype: torch.dtype | None = None,
    predictions: Predictions = "hidden",
    top_k: int = 64,
    engine: str | Engine | EngineMaker = DEFAULT_ENGINE,
    rows_per_shard: int | None = None,
) -> ReplayPool:
    """Sample at least `tokens` tokens from the base into `folder`, in rows of `length`; resumes an unfinished pool.

    The same seed gives the same bytes for one model, machine, set of versions and number of rows per shard, which
    depends on the free memory and is recorded in the pool.

    Where a launcher started several processes, each calls this and writes its part of the shards. The bytes are those
    that one process writes. A failure of one is raised in all.

    Args:
        model, tokenizer: the base, before any fine-tuning, on its device, and its tokenizer. An adapter is disabled.
        tokens: number of targets, rounded up to whole rows of `length` targets.
        length: targets of a row. The opening comes before them: it is context, and no target.
        start: the document-start token, as text or id, if the detected one is wrong. Several open rows in turn.
        prompts: how rows start: as a `document`; as a `chat`, with the chat template up to the user's first words; or
            `mixed`, as a document and as a chat in turn.
        opening: what stands before a document; `auto` chooses by what the base predicts after each candidate, see
            `keeptune.replay.openings`.
        temperature: divides the logits before sampling. Values below 1 give more typical text, above 1 more varied
            text. Stored predictions are always those at temperature 1. Keep 1 for next-token replay.
        dtype: dtype of sampling and of the stored states; default the dtype in which training multiplies.
        predictions: what to store of the base's predictions: `hidden` states (exact), `topk` tokens (small), or `none`.
        top_k: tokens to store of each prediction, for topk.
        engine: what samples the rows: a name in `keeptune.replay.engines.ENGINES`, an `Engine`, or what makes one.
        rows_per_shard: rows that are sampled and written together, which a kill loses and processes share out; by
            default what fits the memory, or the engine's `rows`.

    Raises:
        OutputExists: `folder` contains something else.
        PoolError: the engine returned other rows than asked for, or another process failed.
        ConfigError: a tokenizer or rows that the model cannot read (see `check_sizes`), no document start or chat
            template, an unsupported architecture, a model that has other predictions when it is read token by token, a
            temperature that is not positive, or too little memory.
    """
    sampling = Sampling(
        length=length,
        seed=seed,
        start=start,
        prompts=prompts,
        opening=opening,
        temperature=temperature,
        dtype=dtype,
        predictions=predictions,
        top_k=top_k,
        engine=engine,
        rows_per_shard=rows_per_shard,
    )
    settled = sampling.settled(model, tokenizer)
    with together() as ranks:
        pool, opened = begin_sampled(model, tokenizer, Path(folder), tokens, sampling, settled, ranks)
        if pool.rows_written < pool.rows:
            log_start(pool, opened, ranks)
            with pool.withdrawn_on_failure() if ranks.is_main else nullcontext():
                sample_rows(pool, model, settled, ranks)
            if ranks.is_main:
                check_diversity(pool, tokenizer)
    return ReplayPool.open(folder)


@without_adapter
def text_pool(
    model: nn.Module,
    tokenizer: Any,
    folder: str | Path,
    texts: str | Sequence[str] | Tensor,
    *,
    tokens: int | None = None,
    length: int | None = None,
    seed: int | None = None,
    start: str | int | None = None,
    opening: Opening = "auto",
    source: str | None = None,
    dtype: torch.dtype | None = None,
    predictions: Predictions = "hidden",
    top_k: int = 64,
) -> ReplayPool:
    """Store the base's predictions on real text in `folder`; resumes an unfinished pool of the same rows.

    The last rows of the pool are held out for the drift readings and the certificate.

    Args:
        model, tokenizer: the base, before any fine-tuning, on its device, and its tokenizer. An adapter is disabled.
        texts: plain texts, one string a document; or the name of a data set, as for `load_documents`; or rows that
            `keeptune.data.encode.text_rows` cut, integer [R, T + 1].
        tokens, length, seed, start: how to cut texts into rows; see `text_rows`. Default length 128.
        opening: what stands before a row's targets; see `sample_pool`.
        source: name of the text in the pool's settings and in readings; default the data set's name.
        dtype: dtype of the stored states; default the dtype in which training multiplies.
        predictions, top_k: what to store of the base's predictions; see `sample_pool`.

    Raises:
        OutputExists: `folder` contains something else, such as a pool of other rows.
        SourceError: no data set has that name, or there are no texts.
        ConfigError: a tokenizer or rows that the model cannot read (see `check_sizes`), texts too short for a row, rows
            of another kind, or an unsupported architecture.
    """
    if isinstance(texts, Tensor):
        if (tokens, length, seed, start) != (None, None, None, None):
            raise ConfigError("the rows are cut already", "leave out tokens, length, seed and start, or give texts")
        rows_RT1, name = texts.to("cpu"), "given rows"
    else:
        order = SEED if seed is None else seed
        rows_RT1 = text_rows(texts, tokenizer, tokens=tokens, length=length or ROW_LENGTH, seed=order, start=start)
        name = texts if isinstance(texts, str) else f"{len(texts)} texts"
    settle(model)
    dtype = dtype or training_dtype(model)
    start_token, rows, length = _start_of(rows_RT1, vocabulary_of(model)), len(rows_RT1), rows_RT1.shape[1] - 1
    check_sizes(model, tokenizer, length)
    with together() as ranks:
        find = partial(find_openings, model, tokenizer, start=start_token, opening=opening, length=length)
        opened = find(seed=SEED if seed is None else seed, known=recorded_openings(folder))
        check_length(model, length + opened.longest - 1)
        rows_RT1 = rows_RT1.to(torch.int64)
        settings = PoolSettings(
            **base_settings(model, dtype, predictions, top_k),
            **opened.settings,
            length=length,
            rows_per_shard=_TEXT_ROWS_PER_SHARD,
            seed=0,
            sampling=f"real text from {source or name}",
            text_sha256=hashlib.sha256(rows_RT1.numpy().tobytes()).hexdigest(),
        )
        pool, causal = start_pool(Path(folder), settings, rows, ranks), causal_model(model)
        if pool.rows_written < pool.rows:
            log_start(pool, opened.description, ranks)
        with (
            pool.withdrawn_on_failure() if ranks.is_main else nullcontext(),
            evaluating(causal),
            track("Computing predictions on the text", pool.rows, "rows", shown=ranks.is_main) as progress,
        ):
            ids = pool.settings.openings
            write_shards(pool, causal, dtype, lambda piece: open_rows(rows_RT1, ids, piece.rows), progress, ranks)
        if ranks.is_main:
            check_diversity(pool, tokenizer)
    return ReplayPool.open(folder)


def _start_of(tokens_RT1: Tensor, vocabulary: int) -> int:
    """The token that every row starts with."""
    fix = "give int64 [rows, length + 1] as keeptune.data.encode.text_rows does"
    if tokens_RT1.ndim != 2 or tokens_RT1.is_floating_point() or not len(tokens_RT1) or tokens_RT1.shape[1] < 3:
        raise ConfigError(f"a tensor {list(tokens_RT1.shape)} of {tokens_RT1.dtype} does not hold rows of tokens", fix)
    if tokens_RT1.min() < 0 or tokens_RT1.max() >= vocabulary:
        raise ConfigError(f"the rows hold ids outside the base's vocabulary of {vocabulary}", fix)
    first = int(tokens_RT1[0, 0])
    if (tokens_RT1[:, 0] != first).any():
        raise ConfigError("the rows start with different tokens instead of one document-start token", fix)
    return first
