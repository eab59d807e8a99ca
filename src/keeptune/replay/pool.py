"""The replay pool on disk: token rows, sampled from the base or real text, and the base's predictions on them.

A folder with `manifest.json` and safetensors shards. A shard is written atomically, and the manifest after it, so a
kill loses at most the current shard, and the same command resumes. Of several processes each writes whole shards, and
one of them the manifest; a shard that was written after it is found by its name.

Shapes: R rows, T targets of a row, W tokens of the longest opening and T, D width of the model, K tokens of a
prediction.
    tokens_RW   int32 [R, W]       the opening, T sampled or given tokens, and padding where the opening is shorter
and the stored predictions of the base for the T targets of each row (`PoolSettings.predictions`):
    hidden      hidden_RTD  float [R, T, D]          final hidden states: exact
    topk        top_ids_RTK int32 [R, T, K],         the K most likely tokens,
                top_log_probs_RTK1 fp16 [R, T, K+1]  their log-probabilities and that of the rest of the vocabulary
    none        nothing
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from keeptune.codec import JsonValue, from_json, to_json
from keeptune.errors import OutputExists, PoolError, PoolMismatch, SourceNotFound
from keeptune.replay.batch import ReplayBatch, opened_batch
from keeptune.replay.manifest import MANIFEST, Manifest, PoolSettings, Shard, read_manifest
from keeptune.storage import atomic_file, sha256_file

_TENSORS = {"hidden": ("hidden",), "topk": ("top_ids", "top_log_probs"), "none": ()}


class PoolState(TypedDict):
    """A pool as JSON, from one process to another."""

    rows: int
    settings: JsonValue
    shards: list[Shard]
    ready: list[tuple[int, Shard]]


class Piece(NamedTuple):
    """A shard to write: its place in the pool, and its rows."""

    number: int
    rows: range


@dataclass(kw_only=True)
class ReplayPool(Manifest):
    """A finished pool, memory-mapped. Make one with `sample_pool` or `text_pool`, open one with `ReplayPool.open`."""

    folder: Path
    ready: dict[int, Shard] = field(default_factory=dict, repr=False)
    """Written shards by their number that the manifest lacks, because one before them is not written."""
    _open: dict[int, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def find(cls, folder: Path) -> ReplayPool | None:
        """The pool in `folder`, finished or not; None if there is none. See `read_manifest` for what it raises."""
        found = read_manifest(folder)
        if found is None:
            return None
        return cls(folder=folder, settings=found.settings, rows=found.rows, shards=found.shards)

    @classmethod
    def open(cls, folder: str | Path) -> ReplayPool:
        """Open a pool and verify every checksum. Raises `SourceNotFound`, or `PoolError` if unfinished or damaged."""
        pool = cls.find(Path(folder))
        if pool is None:
            raise SourceNotFound(f"no replay pool at {folder}", "make one with: keeptune replay MODEL --out FOLDER")
        if pool.rows_written < pool.rows:
            raise PoolError(
                f"the replay pool {folder} is unfinished: {pool.rows_written} of {pool.rows} rows",
                "run the same keeptune replay command again to finish it",
            )
        for shard in pool.shards:
            pool.verify(shard)
        return pool

    @classmethod
    def start(cls, folder: Path, settings: PoolSettings, rows: int) -> ReplayPool:
        """A pool to append to: a new one, or the pool with the same settings in `folder`.

        An unfinished pool is continued, and a finished pool with fewer rows is grown. Raises `OutputExists` if `folder`
        contains a pool with other settings, or other files; `PoolError` if a shard of the existing pool is damaged.
        """
        pool = cls.find(folder)
        if pool is None:
            if folder.exists() and any(folder.iterdir()):
                raise OutputExists(f"{folder} is not empty and contains no replay pool", "choose another --out")
            pool = cls(folder=folder, settings=settings, rows=rows, shards=[])
        differing = [key for key, value in asdict(settings).items() if asdict(pool.settings)[key] != value]
        if differing:
            raise OutputExists(
                f"{folder} contains a replay pool with other settings ({', '.join(differing)})",
                "choose another --out, or delete that folder first",
            )
        pool.rows = max(pool.rows, rows)
        pool.save(folder)
        for shard in pool.shards:
            pool.verify(shard)
        pool.sweep()
        pool.add({piece.number: record for piece in pool.missing() if (record := pool.written(piece)) is not None})
        return pool

    def sweep(self) -> None:
        """Remove the half-written files of killed processes."""
        for left in self.folder.glob(".*.tmp"):
            left.unlink(missing_ok=True)

    def missing(self) -> list[Piece]:
        """The shards that are not written, in their order."""
        size = self.settings.rows_per_shard
        starts = range(self.rows_written, self.rows, size)
        pieces = (Piece(number, range(start, start + size)) for number, start in enumerate(starts, len(self.shards)))
        return [
            Piece(number, range(rows.start, min(rows.stop, self.rows)))
            for number, rows in pieces
            if number not in self.ready
        ]

    def verify(self, shard: Shard) -> None:
        """Raise `PoolError` if a shard's bytes changed since it was written."""
        path = self.folder / shard["file"]
        if not path.is_file() or sha256_file(path) != shard["sha256"]:
            raise PoolError(
                f"the replay pool is damaged: {path} is missing, truncated or changed",
                f"delete {self.folder} and make the pool again with keeptune replay",
            )

    def check_base(self, fingerprint: str) -> None:
        """Raise `PoolMismatch` if the pool was written by another base."""
        if fingerprint != self.settings.base:
            raise PoolMismatch(
                f"the replay pool {self.folder} was written by another base model"
                f" (fingerprint {self.settings.base[:12]}, this model {fingerprint[:12]})",
                "make a pool from this model with: keeptune replay MODEL --out FOLDER",
            )

    def batch(self, rows: Tensor) -> ReplayBatch:
        """The rows with these indices, in this order, on the CPU."""
        located = [self._locate(row) for row in rows.tolist()]

        def read(name: str) -> Tensor:
            return torch.cat([shard.get_slice(name)[offset : offset + 1] for shard, offset in located])

        # Pools of format 1 hold predictions for the opening too, which come first.
        outputs = {name: read(name)[:, -self.settings.length :] for name in _TENSORS[self.settings.predictions]}
        opening_B = torch.tensor([len(self.settings.opening_of(row)) for row in rows.tolist()])
        return opened_batch(read("tokens").long(), opening_B, self.settings.length, outputs)

    def tokens_of(self, row: int) -> Tensor:
        """The ids of one row, its opening first: int64 [opening + T]."""
        shard, offset = self._locate(row)
        end = len(self.settings.opening_of(row)) + self.settings.length
        return shard.get_slice("tokens")[offset, :end].long()

    def _locate(self, row: int) -> tuple[Any, int]:
        """The memory-mapped shard that holds a row, and the row's place in it."""
        ends = list(accumulate(shard["rows"] for shard in self.shards))
        shard = bisect_right(ends, row)
        if shard not in self._open:
            path = self.folder / self.shards[shard]["file"]
            try:
                self._open[shard] = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise PoolError(
                    f"the replay pool is damaged: cannot read {path}", f"delete {self.folder} and make the pool again"
                ) from error
        return self._open[shard], row - (ends[shard - 1] if shard else 0)

    def write(self, number: int, tokens_BW: Tensor, outputs: dict[str, Tensor]) -> Shard:
        """Write one shard, padded, with its teacher outputs; returns what the manifest holds of it."""
        file = self._file(number)
        with atomic_file(file) as temporary:
            tokens_RW = functional.pad(tokens_BW, (0, self.settings.width - tokens_BW.shape[1]))
            tensors = {"tokens": tokens_RW.int(), **outputs}
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, temporary)
        return {"file": file.name, "rows": len(tokens_RW), "sha256": sha256_file(file)}

    def add(self, written: dict[int, Shard]) -> None:
        """Take written shards into the pool, by their number, and write the manifest if it grew."""
        self.ready.update(written)
        before = len(self.shards)
        while len(self.shards) in self.ready:
            self.shards.append(self.ready.pop(len(self.shards)))
        if len(self.shards) > before:
            self.save(self.folder)

    def _file(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.safetensors"

    def written(self, piece: Piece) -> Shard | None:
        """What the manifest would hold of a shard that was written after it; None if there is no such shard."""
        file, shape = self._file(piece.number), [len(piece.rows), self.settings.width]
        try:
            with safe_open(file, framework="pt") as shard:
                whole = set(shard.keys()) == {"tokens", *_TENSORS[self.settings.predictions]}
                if not whole or shard.get_slice("tokens").get_shape() != shape:
                    return None
        except (SafetensorError, OSError):
            return None
        return {"file": file.name, "rows": len(piece.rows), "sha256": sha256_file(file)}

    @contextmanager
    def withdrawn_on_failure(self) -> Iterator[None]:
        """Remove the manifest of a pool without a finished shard if the block fails: nothing half-made is left."""
        try:
            yield
        except Exception:
            if not self.shards and not any(self.folder.glob("shard-*")):
                (self.folder / MANIFEST).unlink(missing_ok=True)
                with suppress(OSError):  # it holds something else
                    self.folder.rmdir()
            raise

    def state(self) -> PoolState:
        """The pool as JSON, for `from_state` in another process."""
        ready = list(self.ready.items())
        return {"rows": self.rows, "settings": to_json(self.settings), "shards": self.shards, "ready": ready}

    @classmethod
    def from_state(cls, folder: Path, state: PoolState) -> ReplayPool:
        """The pool that another process started. Its files may take seconds to show here on NFS, so none is read."""
        settings, ready = from_json(PoolSettings, state["settings"]), dict(state["ready"])
        return cls(folder=folder, settings=settings, rows=state["rows"], shards=state["shards"], ready=ready)
