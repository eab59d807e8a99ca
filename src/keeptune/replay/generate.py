"""Make a pool: the base samples, and its hidden states on the samples are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from keeptune.errors import ConfigError
from keeptune.log import logger, track
from keeptune.models.adapters import causal_model, evaluating
from keeptune.models.modeling import check_head, fingerprint, training_dtype
from keeptune.models.vocabulary import document_start
from keeptune.replay.engines.torch import TorchEngine
from keeptune.replay.openings import Prompts, chat_opening
from keeptune.replay.pool import PoolSettings, Predictions, ReplayPool, read_manifest, sampling_words, start_pool
from keeptune.replay.teachers import teacher_outputs
from keeptune.system import free_bytes, versions

# On a CPU twice the rows gain 17 % (benchmarks/bench_sample.py), for twice the memory and work that a kill can lose.
_MOST_ROWS = {"cpu": 128, "cuda": 1024}


def sample_pool(
    model: nn.Module,
    tokenizer: Any,
    folder: str | Path,
    *,
    tokens: int,
    length: int = 256,
    seed: int = 0,
    start: str | int | Sequence[str | int] | None = None,
    prompts: Prompts = "document",
    temperature: float = 1.0,
    dtype: torch.dtype | None = None,
    predictions: Predictions = "hidden",
    top_k: int = 64,
) -> ReplayPool:
    """Let the base `model` write at least `tokens` tokens into `folder`, rows of `length`; resumes an unfinished pool.

    Args:
        model: the base, before any fine-tuning, on its device.
        tokenizer: its tokenizer, used to find the document start unless `start` gives it.
        tokens: targets, rounded up to whole rows.
        seed: the same seed, model, machine, versions and rows drawn together (memory decides; recorded in the pool)
            give the same bytes.
        start: the document-start token, as text or id, where the one found is not the right one; of several, rows
            start with each in turn.
        prompts: rows start with that token, or as a chat: with what the chat template puts before a user's words.
        temperature: divides the logits that are drawn from: below 1 the text is likelier than what the base writes on
            its own, above 1 less likely. What is kept are its predictions at temperature 1 all the same. Leave it at 1
            for next-token replay, which learns the text's distribution (lab/temperature).
        dtype: of sampling and of the stored states; default the one that training multiplies in.
        predictions: what to keep of the base's predictions: `hidden` states (exact), the `topk` words (small), `none`.
        top_k: words to keep of each, with topk.

    Raises:
        OutputExists: `folder` holds something else.
        ConfigError: no document start or chat template, an opening as long as a row, an architecture whose logits
            cannot be rebuilt from its hidden states, a temperature that is not positive, or no memory for a single row.
    """
    if not 0.0 < temperature < math.inf:
        raise ConfigError(f"temperature is {temperature}", "give a positive number; 1 is the base's own distribution")
    dtype = dtype or training_dtype(model)
    of_base = base_settings(model, dtype, predictions, top_k)
    (start_token, *more_starts), opening, found = _opening(tokenizer, prompts, start)
    if len(opening) >= length:
        raise ConfigError(
            f"the chat template opens with {len(opening) + 1} tokens, and a row has {length + 1}",
            f"write longer rows: --length {2 * len(opening)} or more",
        )
    rows = math.ceil(tokens / length)
    standing = read_manifest(Path(folder))
    settings = PoolSettings(
        start_token=start_token,
        start_text=tokenizer.convert_ids_to_tokens(start_token),
        length=length,
        rows_per_shard=standing.settings.rows_per_shard if standing else rows_that_fit(model, length, dtype),
        seed=seed,
        prompts="document start" if prompts == "document" else "chat",
        opening=opening,
        more_starts=more_starts,
        sampling=sampling_words(temperature),
        **of_base,
    )
    pool = start_pool(Path(folder), settings, rows)
    if pool.rows_written < pool.rows:
        logger.info(f"rows start with {settings.start_text!r}: {found}")
        _fill(pool, model, dtype, temperature)
    return ReplayPool.open(folder)


def base_settings(model: nn.Module, dtype: torch.dtype, predictions: Predictions, top_k: int) -> dict[str, Any]:
    """The fields of `PoolSettings` that say which base predicts, how it computes, and what is kept of that.

    Raises:
        ConfigError: logits that cannot be rebuilt from hidden states, or a `top_k` outside the vocabulary.
    """
    check_head(model)
    vocabulary = causal_model(model).get_output_embeddings().weight.shape[0]
    if predictions == "topk" and not 1 <= top_k < vocabulary:
        raise ConfigError(f"top_k is {top_k}", f"give a number from 1 to {vocabulary - 1}, such as 64")
    name = str(dtype).removeprefix("torch.")
    return {
        "base": fingerprint(model),
        "sampling_dtype": name,
        "hidden_dtype": name,
        "versions": versions(),
        "predictions": predictions,
        "top_k": top_k if predictions == "topk" else 0,
    }


def _opening(
    tokenizer: Any, prompts: Prompts, start: str | int | Sequence[str | int] | None
) -> tuple[list[int], list[int], str]:
    """First tokens of the rows, what follows them before the first drawn token, and in words how they were found."""
    if prompts == "chat":
        first, *rest = chat_opening(tokenizer)
        return [first], rest, "the chat template up to a user's first words"
    if start is None or isinstance(start, str | int):
        token, found = document_start(tokenizer, override=start)
        return [token], [], found
    if not start:
        raise ConfigError("no start token is given", "give one or more, or leave start out")
    tokens = [document_start(tokenizer, override=one)[0] for one in start]
    return tokens, [], "as given, in turn with the other starts" if len(tokens) > 1 else "as given"


def rows_that_fit(model: nn.Module, length: int, dtype: torch.dtype) -> int:
    """Rows of `length` tokens that `model` can draw together in `dtype`: a power of two, so that small changes of the
    free memory change nothing.

    They take half of what is free once the copy of the model that writes has its place.

    Raises:
        ConfigError: not even one row fits.
    """
    causal = causal_model(model)
    config, weight = causal.config.get_text_config(), causal.get_output_embeddings().weight
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache = 2 * config.num_hidden_layers * heads * width * (1 + length) * dtype.itemsize
    draw = len(weight) * (dtype.itemsize + 3 * torch.float32.itemsize)
    kept = 2 * config.hidden_size * length * dtype.itemsize  # the chunks, then all of them in one
    copied = weight.device.type == "cpu" or weight.dtype != dtype
    copy = sum(p.numel() for p in causal.parameters()) * (weight.dtype.itemsize + dtype.itemsize) if copied else 0
    if weight.device.type == "cpu":
        fits = (free_bytes("cpu") - copy) // 2 // (cache + draw + kept)
    else:
        fits = min((free_bytes(weight.device) - copy) // 2 // (cache + draw), free_bytes("cpu") // 2 // kept)
    if fits < 1:
        raise ConfigError(
            f"no memory to write one row of {length} tokens beside the model",
            "write shorter rows (length), or free memory on the device",
        )
    return min(2 ** (int(fits).bit_length() - 1), _MOST_ROWS.get(weight.device.type, _MOST_ROWS["cpu"]))


def _fill(pool: ReplayPool, model: nn.Module, dtype: torch.dtype, temperature: float) -> None:
    causal, settings = causal_model(model), pool.settings
    openings = [[start, *settings.opening] for start in (settings.start_token, *settings.more_starts)]
    drawn = settings.length + 1 - len(openings[0])
    label = "The base writes replay text" if settings.prompts == "document start" else "The base writes chats"
    with evaluating(causal), track(label, pool.rows * drawn, "tokens") as progress:
        progress.skip(pool.rows_written * drawn)
        sampler = TorchEngine(
            causal,
            dtype=dtype,
            rows=settings.rows_per_shard,
            on_token=progress.advance,
            temperature=temperature,
        )

        def write(rows: range) -> Tensor:
            seed = _shard_seed(settings.seed, len(pool.shards))
            return sampler.sample(len(rows), drawn, [openings[row % len(openings)] for row in rows], seed)

        append_shards(pool, causal, dtype, write)


def append_shards(pool: ReplayPool, causal: nn.Module, dtype: torch.dtype, rows_of: Callable[[range], Tensor]) -> None:
    """Append shards until the pool is whole: `rows_of` gives the tokens [R, T + 1] of the rows with these indices."""
    settings = pool.settings
    while pool.rows_written < pool.rows:
        end = min(pool.rows_written + settings.rows_per_shard, pool.rows)
        tokens_RT1 = rows_of(range(pool.rows_written, end))
        kept = teacher_outputs(causal, tokens_RT1[:, :-1], dtype, settings.predictions, settings.top_k)
        pool.append(tokens_RT1, kept)


def _shard_seed(seed: int, shard: int) -> int:
    return int(torch.randint(2**62, (shard + 1,), generator=torch.Generator().manual_seed(seed))[shard])
