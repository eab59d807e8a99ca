"""Write a pool on Ray: by workers on many machines, each of which may vanish while it works.

Each worker is an actor that holds the base. Workers take shards one at a time, and the process that asked for the pool
writes the manifest. A worker that dies is replaced, and its shard is given to another one. A shard's bytes depend on
the settings and its number alone, so they are those that one process writes. All machines must see the pool's folder.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import torch

from keeptune.cluster import Crew, enter, needs, start_ray
from keeptune.errors import ConfigError
from keeptune.models.adapters import causal_model, evaluating
from keeptune.models.loading import load_model
from keeptune.models.modeling import fingerprint, select_attention
from keeptune.models.quantized import LoadIn
from keeptune.models.sharded import place
from keeptune.replay.begin import Sampling, begin_sampled
from keeptune.replay.diversity import check_diversity
from keeptune.replay.manifest import Shard
from keeptune.replay.pool import Piece, PoolState, ReplayPool
from keeptune.replay.ranks import Ranks
from keeptune.replay.teachers import teacher_outputs
from keeptune.replay.write import RowsOf, log_start, sampler, sampling_progress
from keeptune.system import default_device


def sample_on_ray(
    source: str,
    tokenizer: Any,
    folder: str | Path,
    *,
    workers: int,
    tokens: int,
    sampling: Sampling,
    load_in: LoadIn | None = None,
    gpus: int = 1,
) -> ReplayPool:
    """Sample at least `tokens` tokens from the base by so many workers; resumes an unfinished pool.

    Args:
        source: the base by name, as each worker loads it.
        folder: of the pool, by a path that all machines share.
        gpus: of each worker, in a cluster that has any.

    Raises:
        ConfigError: Ray is not installed; or see `keeptune.replay.generate.sample_pool`.
        WorkerLost: workers died one after the other.
    """
    if workers < 1:
        raise ConfigError(f"{workers} workers", "give 1 or more")
    ray, folder = start_ray(), Path(folder)
    share = -(-workers // max(1, sum(node["Alive"] for node in ray.nodes())))
    worker = ray.remote(**needs(ray, gpus))(_Worker).remote
    crew = Crew(
        ray=ray,
        make=partial(worker, Path.cwd(), share, source, load_in, tokenizer, folder, sampling),
        workers=workers,
    )
    try:
        ((_, (state, opened)),) = crew.run([("begin", (tokens,))])
        pool = ReplayPool.from_state(folder, state)
        if pieces := pool.missing():
            log_start(pool, opened, Ranks(world=workers))
            with pool.withdrawn_on_failure(), sampling_progress(pool) as progress:
                progress.skip(pool.rows_written * pool.settings.length)
                for at, record in crew.run([("write", (state, *piece)) for piece in pieces]):
                    pool.add({pieces[at].number: record})
                    progress.advance(len(pieces[at].rows) * pool.settings.length)
            pool.sweep()
            check_diversity(pool, tokenizer)
    finally:
        crew.end()
    return ReplayPool.open(folder)


class _Worker:
    """In a process of its own, perhaps on another machine: the base, and the shards that are asked for."""

    def __init__(
        self,
        here: Path,
        share: int,
        source: str,
        load_in: LoadIn | None,
        tokenizer: Any,
        folder: Path,
        sampling: Sampling,
    ) -> None:
        enter(here)
        os.environ["LOCAL_WORLD_SIZE"] = str(share)  # of the machine's memory, see `keeptune.system.free_bytes`
        self.tokenizer, self.folder, self.sampling = tokenizer, folder, sampling
        self.base = place(load_model(source, load_in=load_in), default_device())
        select_attention(self.base, sampling.length)  # as in training, so that the stored states match
        self.settled = sampling.settled(self.base, tokenizer)
        self.rows_of: RowsOf | None = None

    def ready(self) -> None:
        """Answer once the base is loaded."""

    def begin(self, tokens: int) -> tuple[PoolState, str]:
        """Start or find the pool; its state, and how its rows open."""
        how = (self.sampling, self.settled, Ranks())
        pool, opened = begin_sampled(self.base, self.tokenizer, self.folder, tokens, *how)
        return pool.state(), opened

    def write(self, state: PoolState, number: int, rows: range) -> Shard:
        """Write a shard, unless a worker that died wrote it before it could say so."""
        pool, piece, causal = ReplayPool.from_state(self.folder, state), Piece(number, rows), causal_model(self.base)
        settings = pool.settings
        if (record := pool.written(piece)) is not None:
            return record
        if self.rows_of is None:
            pool.check_base(fingerprint(self.base))
            self.settled = self.settled._replace(dtype=getattr(torch, settings.sampling_dtype))
            self.rows_of = sampler(settings, causal, self.settled, lambda _: None)
        with evaluating(causal):
            batch = self.rows_of(piece)
            outputs = teacher_outputs(causal, batch, self.settled.dtype, settings.predictions, settings.top_k)
        return pool.write(number, batch.tokens_BW, outputs)
