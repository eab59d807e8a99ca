"""How a pool begins: the openings of its rows, and the settings that determine its bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import torch
from torch import nn

from keeptune.data.rows import ROW_LENGTH, SEED
from keeptune.errors import ConfigError
from keeptune.models.adapters import causal_model
from keeptune.models.limits import check_length, check_sizes
from keeptune.models.modeling import check_head, fingerprint, training_dtype
from keeptune.models.quantized import check_storable, settle
from keeptune.replay.engines import Engine, EngineMaker, engine_named
from keeptune.replay.manifest import (
    DEFAULT_ENGINE,
    Opening,
    PoolSettings,
    Predictions,
    describe_sampling,
    read_manifest,
)
from keeptune.replay.openings import Prompts, find_openings, recorded_openings
from keeptune.replay.pool import ReplayPool
from keeptune.replay.ranks import Ranks
from keeptune.system import versions


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How rows are sampled: the arguments of `keeptune.replay.generate.sample_pool`."""

    length: int = ROW_LENGTH
    seed: int = SEED
    start: str | int | Sequence[str | int] | None = None
    prompts: Prompts = "document"
    opening: Opening = "auto"
    temperature: float = 1.0
    dtype: torch.dtype | None = None
    predictions: Predictions = "hidden"
    top_k: int = 64
    engine: str | Engine | EngineMaker = DEFAULT_ENGINE
    rows_per_shard: int | None = None

    def settled(self, model: nn.Module, tokenizer: Any) -> Settled:
        """What samples the rows of this base. Raises `ConfigError` if the base cannot read them."""
        check_sizes(model, tokenizer, self.length)
        engine = engine_named(self.engine) if isinstance(self.engine, str) else self.engine
        temperature = _temperature(engine, self.temperature)
        settle(model)
        return Settled(engine, temperature, self.dtype or training_dtype(model))


class Settled(NamedTuple):
    """What samples rows of a base, and how."""

    engine: Engine | EngineMaker
    temperature: float
    dtype: torch.dtype


def begin_sampled(
    model: nn.Module,
    tokenizer: Any,
    folder: Path,
    tokens: int,
    sampling: Sampling,
    settled: Settled,
    ranks: Ranks,
) -> tuple[ReplayPool, str]:
    """The pool to write sampled rows to, new or unfinished, and how its rows open.

    Raises: see `keeptune.replay.generate.sample_pool`.
    """
    engine, temperature, dtype = settled
    opened = find_openings(
        model,
        tokenizer,
        prompts=sampling.prompts,
        start=sampling.start,
        opening=sampling.opening,
        length=sampling.length,
        seed=sampling.seed,
        known=recorded_openings(folder),
    )
    longest = sampling.length + opened.longest - 1
    check_length(model, longest)
    given = sampling.rows_per_shard or _rows_per_shard(folder, engine, model, longest, dtype)
    settings = PoolSettings(
        **base_settings(model, dtype, sampling.predictions, sampling.top_k),
        **opened.settings,
        length=sampling.length,
        rows_per_shard=_checked_rows(engine, min(ranks.gather(given))),
        seed=sampling.seed,
        sampling=describe_sampling(temperature),
        engine=engine.name,
    )
    return start_pool(folder, settings, math.ceil(tokens / sampling.length), ranks), opened.description


def start_pool(folder: Path, settings: PoolSettings, rows: int, ranks: Ranks) -> ReplayPool:
    """The pool to write to, as rank 0 finds or starts it."""
    pool = ReplayPool.start(folder, settings, rows) if ranks.is_main else None
    state = ranks.gather(None if pool is None else pool.state())[0]
    return ReplayPool.from_state(folder, state) if pool is None else pool


def vocabulary_of(model: nn.Module) -> int:
    return len(causal_model(model).get_output_embeddings().weight)


class _BaseSettings(TypedDict):
    base: str
    sampling_dtype: str
    hidden_dtype: str
    versions: dict[str, str]
    predictions: Predictions
    top_k: int


def base_settings(model: nn.Module, dtype: torch.dtype, predictions: Predictions, top_k: int) -> _BaseSettings:
    """The fields of `PoolSettings` about the base, its dtype and the stored predictions.

    Raises `ConfigError` for logits that cannot be rebuilt from hidden states, or a `top_k` outside the vocabulary.
    """
    check_head(model)
    if predictions != "none":
        check_storable(model)
    if predictions == "topk" and not 1 <= top_k < vocabulary_of(model):
        raise ConfigError(f"top_k is {top_k}", f"give a number from 1 to {vocabulary_of(model) - 1}, such as 64")
    name = str(dtype).removeprefix("torch.")
    return {
        "base": fingerprint(model),
        "sampling_dtype": name,
        "hidden_dtype": name,
        "versions": versions(),
        "predictions": predictions,
        "top_k": top_k if predictions == "topk" else 0,
    }


def _temperature(engine: Engine | EngineMaker, temperature: float) -> float:
    if not isinstance(engine, EngineMaker):
        if temperature not in (1.0, engine.temperature):
            raise ConfigError(
                f"temperature is {temperature}, and the engine's is {engine.temperature}", "leave temperature out"
            )
        temperature = engine.temperature
    if not 0.0 < temperature < math.inf:
        raise ConfigError(f"temperature is {temperature}", "give a positive number; 1 is the base's own distribution")
    return temperature


def _rows_per_shard(
    folder: Path, engine: Engine | EngineMaker, model: nn.Module, length: int, dtype: torch.dtype
) -> int:
    """The number recorded in an existing pool, else what the engine can sample together."""
    if existing := read_manifest(folder):
        return existing.settings.rows_per_shard
    return engine.rows_that_fit(model, length, dtype) if isinstance(engine, EngineMaker) else engine.rows


def _checked_rows(engine: Engine | EngineMaker, rows: int) -> int:
    """Raise `ConfigError` if an engine that is given as an object samples another number of rows together."""
    if rows < 1:
        raise ConfigError(f"rows_per_shard is {rows}", "give 1 or more")
    if not isinstance(engine, EngineMaker) and rows > engine.rows:
        raise ConfigError(
            f"rows_per_shard is {rows}, and the engine samples {engine.rows} rows together", "leave rows_per_shard out"
        )
    return rows
