"""Writing the shards of a pool: what an engine samples, or given rows, with the base's predictions on them.

Shapes: R rows, W tokens of a row with its opening, N rows of one length of opening.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from keeptune.log import Task, logger, track
from keeptune.models.adapters import causal_model, evaluating
from keeptune.models.sharded import is_sharded, reshard
from keeptune.replay.batch import ReplayBatch, opened_batch
from keeptune.replay.begin import Settled
from keeptune.replay.engines import Engine, EngineMaker
from keeptune.replay.manifest import PoolSettings
from keeptune.replay.pool import Piece, ReplayPool
from keeptune.replay.ranks import Ranks
from keeptune.replay.sampled import check_rows, follows_base
from keeptune.replay.teachers import teacher_outputs

RowsOf = Callable[[Piece], ReplayBatch]


def log_start(pool: ReplayPool, opened: str, ranks: Ranks) -> None:
    """How rows open, and whether there are shards for all processes."""
    if not ranks.is_main:
        return
    logger.info(opened)
    if (missing := len(pool.missing())) < ranks.world:
        logger.warning(
            f"{missing} shards of {pool.settings.rows_per_shard} rows are to be written, for {ranks.world} processes:"
            " with fewer rows a shard all of them would have work (keeptune replay --rows-per-shard)"
        )


def sample_rows(pool: ReplayPool, model: nn.Module, settled: Settled, ranks: Ranks) -> None:
    """Complete a pool of sampled rows, with the other processes."""
    causal, length = causal_model(model), pool.settings.length
    with evaluating(causal), sampling_progress(pool, shown=ranks.is_main) as progress:

        def on_token(tokens: int) -> None:
            # The others sample as many in the meantime; each round ends with the true number.
            progress.advance(min(tokens * ranks.world, pool.tokens - progress.done))
            ranks.look_sometimes()

        rows_of = sampler(pool.settings, causal, settled, on_token)
        write_shards(pool, causal, settled.dtype, rows_of, progress, ranks, length)


def sampling_progress(pool: ReplayPool, *, shown: bool = True) -> AbstractContextManager[Task]:
    """Progress in tokens of the whole pool."""
    label = "Sampling chats" if pool.settings.prompts == "chat" else "Sampling replay text"
    return track(label, pool.tokens, "tokens", shown=shown)


def sampler(settings: PoolSettings, causal: Any, settled: Settled, on_token: Callable[[int], None]) -> RowsOf:
    """A function that samples the rows of a shard. They depend on the settings and the shard's number alone."""
    engine, temperature, dtype = settled
    if isinstance(engine, EngineMaker):
        engine = engine(causal, dtype=dtype, rows=settings.rows_per_shard, temperature=temperature, on_token=on_token)
    writer: Engine = engine
    proved: list[int] = []

    def sample(openings: list[list[int]], seed: int, prove: bool) -> Tensor:
        tokens_NW = writer.sample(len(openings), settings.length, openings, seed)
        check_rows(tokens_NW, openings, settings.length, len(causal.get_output_embeddings().weight), writer.name)
        if prove and not follows_base(tokens_NW, causal, dtype, settings.length, writer):
            return sample(openings, seed, prove)
        return tokens_NW

    def shard(piece: Piece) -> ReplayBatch:
        generator = torch.Generator().manual_seed(settings.seed)
        seed = int(torch.randint(2**62, (piece.number + 1,), generator=generator)[piece.number])
        openings = [settings.opening_of(row) for row in piece.rows]
        opening_R = torch.tensor([len(opening) for opening in openings])
        tokens_RW = torch.zeros(len(openings), settings.width, dtype=torch.int64)
        # Every process holds the first shard that it samples against the base.
        prove = not proved
        proved.append(piece.number)
        for group, length in enumerate(opening_R.unique().tolist()):
            places = (opening_R == length).nonzero()[:, 0].tolist()
            tokens_NW = sample([openings[place] for place in places], seed + group, prove=prove)
            tokens_RW[places, : tokens_NW.shape[1]] = tokens_NW
        return opened_batch(tokens_RW, opening_R, settings.length)

    return shard


def write_shards(
    pool: ReplayPool,
    causal: Any,
    dtype: torch.dtype,
    rows_of: RowsOf,
    progress: Task,
    ranks: Ranks,
    units: int = 1,
) -> None:
    """Complete the pool with the rows that `rows_of` gives of a shard; each row is `units` of progress."""
    settings, sharded = pool.settings, is_sharded(causal)

    def forwards(piece: Piece) -> tuple[int, ...]:
        return tuple(sorted(len(settings.opening_of(row)) for row in piece.rows))

    progress.skip(pool.rows_written * units)
    for pieces in ranks.rounds(pool.missing(), forwards if sharded else None):
        written = None
        own = pieces[ranks.rank] if ranks.rank < len(pieces) else pieces[0] if sharded else None
        if own is not None:
            batch = rows_of(own)
            outputs = teacher_outputs(causal, batch, dtype, settings.predictions, settings.top_k)
            if own is not pieces[0] or ranks.is_main:
                written = pool.write(own.number, batch.tokens_BW, outputs)
        records = ranks.gather(written)
        new = {piece.number: record for piece, record in zip(pieces, records, strict=False)}
        pool.add(new) if ranks.is_main else pool.ready.update(new)
        progress.advance(pool.rows_written * units - progress.done)
    reshard(causal)
    ranks.gather()  # the manifest is written
