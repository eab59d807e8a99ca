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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from typing_extensions import TypedDict  # pydantic reads typing's from Python 3.12 on

from keeptune.codec import JsonValue, from_json, to_json
from keeptune.errors import OutputExists, PoolError, PoolMismatch, SourceNotFound
from keeptune.replay.batch import ReplayBatch, opened_batch
from keeptune.storage import atomic_file, sha256_file, write_json

Predictions = Literal["hidden", "topk", "none"]
Opening = Literal["auto", "start", "twice", "newline", "text", "start-text"]

_FORMAT = 2
_MANIFEST = "manifest.json"
_TENSORS = {"hidden": ("hidden",), "topk": ("top_ids", "top_log_probs"), "none": ()}


def describe_sampling(temperature: float) -> str:
    """How tokens are sampled, for `PoolSettings.sampling`."""
    number = str(float(temperature)).removesuffix(".0")
    return f"ancestral, temperature {number}, no top-k, no top-p, nothing stops a row"


# The base's own distribution.
SAMPLING = describe_sampling(1.0)
DEFAULT_ENGINE = "torch"


class Probed(TypedDict):
    """The numbers of one candidate opening, as `keeptune.replay.probe.Probe` has them."""

    entropy: float
    top: str
    share: float
    noise: list[float] | None
    known: float


class Shard(TypedDict):
    """A file of rows."""

    file: str
    rows: int
    sha256: str


class _Manifest(TypedDict):
    format: int
    rows: int
    settings: dict[str, JsonValue]
    shards: list[Shard]


class Told(TypedDict):
    """A pool as JSON, from one process to another."""

    rows: int
    settings: JsonValue
    shards: list[Shard]
    ready: list[tuple[int, Shard]]


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """Everything that determines a pool's bytes, except its number of rows."""

    base: str
    """Fingerprint of the base model."""
    start_token: int
    """Id of the token that starts a document; of rows that open as a chat, the first one."""
    start_text: str
    """The same token as text."""
    length: int
    """Targets of a row: the tokens after its opening."""
    rows_per_shard: int
    """Rows sampled together and written together."""
    seed: int
    """Shard i is sampled with a seed derived from this one and i; 0 for real text."""
    sampling_dtype: str
    """Dtype in which the base sampled, or computed its predictions on real text."""
    hidden_dtype: str
    """Dtype of the stored hidden states: the dtype in which training multiplies them by the head."""
    versions: dict[str, str]
    """Versions of keeptune and of its main dependencies."""
    prompts: str = "document start"
    """How a row starts: `document start`, `chat`, or `mixed`, as both in turn."""
    opening: str = "start"
    """How rows open, by the name of a candidate of `keeptune.replay.openings`; or `chat`, or `given`."""
    openings: list[list[int]] = field(default_factory=list)
    """Ids that open rows, each in turn: they are context, neither trained on nor read."""
    probe: dict[str, Probed] = field(default_factory=dict)
    """What the base predicts after each candidate opening; see `keeptune.replay.probe`. Empty if none was probed."""
    sampling: str = SAMPLING
    """How tokens were sampled, or the source of real text."""
    text_sha256: str = ""
    """Checksum of the tokens of real text; empty for sampled text."""
    predictions: Predictions = "hidden"
    """What is stored of the base's predictions."""
    top_k: int = 0
    """Tokens stored of each prediction, if `predictions` is topk."""
    engine: str = DEFAULT_ENGINE
    """Name of the engine that sampled the tokens."""

    @property
    def text(self) -> str:
        """Name of the text in readings: `self` for the base's own text, else `sampling`."""
        return "self" if self.sampling == SAMPLING else self.sampling

    @property
    def width(self) -> int:
        """Tokens of a stored row: its opening, its targets, and padding."""
        return max(map(len, self.openings)) + self.length

    def opening_of(self, row: int) -> list[int]:
        """The ids that open a row."""
        return self.openings[row % len(self.openings)]


class Piece(NamedTuple):
    """A shard to write: its place in the pool, and its rows."""

    number: int
    rows: range


@dataclass(kw_only=True)
class ReplayPool:
    """A finished pool, memory-mapped. Make one with `sample_pool` or `text_pool`, open one with `ReplayPool.open`."""

    folder: Path
    settings: PoolSettings
    rows: int
    shards: list[Shard]
    ready: dict[int, Shard] = field(default_factory=dict, repr=False)
    """Written shards by their number that the manifest lacks, because one before them is not written."""
    _open: dict[int, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> ReplayPool:
        """Open a pool and verify every checksum. Raises `SourceNotFound`, or `PoolError` if unfinished or damaged."""
        pool = read_manifest(Path(folder))
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
        pool = read_manifest(folder)
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
        pool.write_manifest()
        for shard in pool.shards:
            pool.verify(shard)
        for left in folder.glob(".*.tmp"):  # of a killed process
            left.unlink(missing_ok=True)
        pool.add({piece.number: record for piece in pool.missing() if (record := pool._found(piece)) is not None})
        return pool

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

    @property
    def rows_written(self) -> int:
        """Number of rows in finished shards."""
        return sum(shard["rows"] for shard in self.shards)

    @property
    def tokens(self) -> int:
        """Number of targets in the pool."""
        return self.rows * self.settings.length

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

    def write(self, number: int, tokens_RW: Tensor, outputs: dict[str, Tensor]) -> Shard:
        """Write one shard with its teacher outputs; returns what the manifest holds of it."""
        file = self._file(number)
        with atomic_file(file) as temporary:
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
            self.write_manifest()

    def _file(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.safetensors"

    def _found(self, piece: Piece) -> Shard | None:
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
                (self.folder / _MANIFEST).unlink(missing_ok=True)
                with suppress(OSError):  # it holds something else
                    self.folder.rmdir()
            raise

    def write_manifest(self) -> None:
        """Write `manifest.json` atomically."""
        settings = asdict(self.settings)
        if self.settings.engine == DEFAULT_ENGINE:
            del settings["engine"]  # earlier versions do not know this field
        content = {"format": _FORMAT, "rows": self.rows, "settings": settings, "shards": self.shards}
        write_json(self.folder / _MANIFEST, content)

    def told(self) -> Told:
        """The pool as JSON, for `heard` in another process."""
        ready = list(self.ready.items())
        return {"rows": self.rows, "settings": to_json(self.settings), "shards": self.shards, "ready": ready}

    @classmethod
    def heard(cls, folder: Path, told: Told) -> ReplayPool:
        """The pool that another process started: from its words, for a file may take seconds to show on NFS."""
        settings, ready = from_json(PoolSettings, told["settings"]), dict(told["ready"])
        return cls(folder=folder, settings=settings, rows=told["rows"], shards=told["shards"], ready=ready)


def read_manifest(folder: Path) -> ReplayPool | None:
    """The pool in `folder`, finished or not; None if the folder contains no pool.

    Raises `PoolError` if the manifest cannot be read or has another format.
    """
    path = folder / _MANIFEST
    if not path.is_file():
        return None
    try:
        content = from_json(_Manifest, path.read_bytes())
        if content["format"] not in (1, _FORMAT):
            raise ValueError(f"format {content['format']}")
        for shard in content["shards"]:
            if Path(shard["file"]).name != shard["file"]:
                raise ValueError(f"shard outside the folder: {shard['file']}")
        given = _of_format_1(content["settings"]) if content["format"] == 1 else content["settings"]
        if unknown := given.keys() - {of.name for of in fields(PoolSettings)}:
            raise ValueError(f"unknown settings {', '.join(sorted(unknown))}")
        settings = from_json(PoolSettings, cast(JsonValue, given))
        return ReplayPool(folder=folder, settings=settings, rows=content["rows"], shards=content["shards"])
    except (ValueError, KeyError, TypeError) as error:
        raise PoolError(
            f"the replay pool's manifest {path} cannot be read ({error})", f"delete {folder} and make the pool again"
        ) from error


def _of_format_1(settings: dict[str, JsonValue]) -> Mapping[str, object]:
    """Settings of version 0.1: each start token and a chat's opening after it, whose tokens counted as targets."""
    rest, more = (from_json(list[int], settings.get(name, [])) for name in ("opening", "more_starts"))
    starts, length = [from_json(int, settings["start_token"]), *more], from_json(int, settings["length"])
    name = "chat" if settings.get("prompts") == "chat" else "start" if len(starts) == 1 else "given"
    openings = [[start, *rest] for start in starts]
    kept = {key: value for key, value in settings.items() if key != "more_starts"}
    return {**kept, "length": length - len(rest), "opening": name, "openings": openings}
