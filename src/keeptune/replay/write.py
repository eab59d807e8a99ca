"""Make a pool: the base samples, and its hidden states on the samples are kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from keeptune.errors import ConfigError
from keeptune.progress import say, track
from keeptune.replay.pool import PoolSettings, Predictions, ReplayPool, start_pool
from keeptune.replay.precision import training_dtype
from keeptune.replay.sampler import TorchSampler
from keeptune.replay.teacher import causal_model, check_head, fingerprint
from keeptune.replay.teachers import kept_predictions
from keeptune.sources import document_start
from keeptune.versions import versions

_ROWS_PER_SHARD = 128


def sample_pool(
    model: nn.Module,
    tokenizer: Any,
    folder: str | Path,
    *,
    tokens: int,
    length: int = 256,
    seed: int = 0,
    start: str | int | None = None,
    dtype: torch.dtype | None = None,
    predictions: Predictions = "hidden",
    top_k: int = 64,
) -> ReplayPool:
    """Let the base `model` write at least `tokens` tokens into `folder`, rows of `length`; resumes an unfinished pool.

    Args:
        model: the base, before any fine-tuning, on its device.
        tokenizer: its tokenizer, used to find the document start unless `start` gives it.
        tokens: drawn tokens, rounded up to whole rows.
        seed: the same seed, model, machine and versions give the same bytes.
        start: the document-start token, as text or id, where the one found is not the right one.
        dtype: of sampling and of the stored states; default the one that training multiplies in.
        predictions: what to keep of the base's predictions: `hidden` states (exact), the `topk` words (small), `none`.
        top_k: words to keep of each, with topk.

    Raises:
        OutputExists: `folder` holds something else.
        ConfigError: no document start, or an architecture whose logits cannot be rebuilt from its hidden states.
    """
    check_head(model)
    vocabulary = causal_model(model).get_output_embeddings().weight.shape[0]
    if predictions == "topk" and not 1 <= top_k < vocabulary:
        raise ConfigError(f"top_k is {top_k}", f"give a number from 1 to {vocabulary - 1}, such as 64")
    start_token, found = document_start(tokenizer, override=start)
    dtype = dtype or training_dtype(model)
    rows = math.ceil(tokens / length)
    settings = PoolSettings(
        base=fingerprint(model),
        start_token=start_token,
        start_text=tokenizer.convert_ids_to_tokens(start_token),
        length=length,
        rows_per_shard=_ROWS_PER_SHARD,
        seed=seed,
        sampling_dtype=str(dtype).removeprefix("torch."),
        hidden_dtype=str(dtype).removeprefix("torch."),
        versions=versions(),
        predictions=predictions,
        top_k=top_k if predictions == "topk" else 0,
    )
    pool = start_pool(Path(folder), settings, rows)
    for shard in pool.shards:
        pool.verify(shard)
    if pool.rows_written < pool.rows:
        say(f"rows start with {settings.start_text!r}: {found}")
        _fill(pool, model, dtype)
    return ReplayPool.open(folder)


def _fill(pool: ReplayPool, model: nn.Module, dtype: torch.dtype) -> None:
    causal = causal_model(model)
    was_training = causal.training
    causal.eval()
    length = pool.settings.length
    with track("The base writes replay text", pool.rows * length, "tokens") as progress:
        progress.skip(pool.rows_written * length)
        sampler = TorchSampler(causal, dtype=dtype, rows=pool.settings.rows_per_shard, on_token=progress.advance)
        while pool.rows_written < pool.rows:
            rows = min(pool.settings.rows_per_shard, pool.rows - pool.rows_written)
            seed = _shard_seed(pool.settings.seed, len(pool.shards))
            tokens_RT1 = sampler.sample(rows, length, pool.settings.start_token, seed)
            kept = kept_predictions(causal, tokens_RT1[:, :-1], dtype, pool.settings.predictions, pool.settings.top_k)
            pool.append(tokens_RT1, kept)
    causal.train(was_training)


def _shard_seed(seed: int, shard: int) -> int:
    return int(torch.randint(2**62, (shard + 1,), generator=torch.Generator().manual_seed(seed))[shard])
