"""The replay pool: text that the base wrote, or real text, and what the base predicted at every token, on disk.

A folder of `manifest.json` and safetensors shards. A shard is written whole or not at all, the manifest after it,
so a kill loses at most the shard in hand and the same command goes on from there.

Shapes: R rows, T targets a row, D width of the model, K words.
    tokens_RT1  int32 [R, T + 1]   the opening and the drawn or given tokens; position t predicts token t + 1
and what is kept of the base's predictions at positions 0 … T − 1 (`PoolSettings.predictions`):
    hidden      hidden_RTD  float [R, T, D]          its final hidden states: exact
    topk        top_ids_RTK int32 [R, T, K],         its K likeliest words,
                top_log_probs_RTK1 fp16 [R, T, K+1]  their log-probabilities and that of all the rest
    none        nothing
"""

from __future__ import annotations

import json
from bisect import bisect_right
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from keeptune.errors import OutputExists, PoolError, PoolMismatch, SourceNotFound
from keeptune.storage import atomic_file, sha256_file, write_json

Predictions = Literal["hidden", "topk", "none"]

_FORMAT = 1
_MANIFEST = "manifest.json"
_KEPT = {"hidden": ("hidden",), "topk": ("top_ids", "top_log_probs"), "none": ()}


def sampling_words(temperature: float) -> str:
    """How the base writes, for `PoolSettings.sampling`."""
    number = str(float(temperature)).removesuffix(".0")
    return f"ancestral, temperature {number}, no top-k, no top-p, nothing stops a row"


# How the base writes on its own.
SAMPLING = sampling_words(1.0)


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """What determines a pool's bytes, but for its number of rows."""

    base: str
    """Fingerprint of the base model."""
    start_token: int
    """Id of the document-start token that opens every row, or the first one where `more_starts` are given."""
    start_text: str
    """The same token as text."""
    length: int
    """Tokens in a row after the first, each of them a target."""
    rows_per_shard: int
    """Rows drawn together and written together."""
    seed: int
    """Shard i is drawn with a seed made from this one and i; 0 where nothing is drawn."""
    sampling_dtype: str
    """Dtype in which the base wrote, or read what it was given."""
    hidden_dtype: str
    """Dtype of the base's hidden states: the one in which training multiplies them by the head."""
    versions: dict[str, str]
    """Versions of keeptune and of the libraries under it."""
    prompts: str = "document start"
    """What a row starts from."""
    opening: list[int] = field(default_factory=list)
    """Ids that follow the start token in every row, before the first drawn one: those of a chat's opening."""
    more_starts: list[int] = field(default_factory=list)
    """Start tokens beside the first: rows open with each of them in turn."""
    sampling: str = SAMPLING
    """How tokens were drawn, or from where real text was taken."""
    text_sha256: str = ""
    """Of the tokens of real text; empty where the base wrote them."""
    predictions: Predictions = "hidden"
    """What is kept of the base's predictions."""
    top_k: int = 0
    """Words kept of each prediction, where `predictions` is topk."""

    @property
    def text(self) -> str:
        """What the rows hold, as readings name it: `self`, the base's own text, or the words of `sampling`."""
        return "self" if self.sampling == SAMPLING else self.sampling


@dataclass(frozen=True, kw_only=True)
class ReplayBatch:
    """Rows of a pool as a loss wants them."""

    tokens_BT1: Tensor
    """int64 [B, T + 1]."""
    kept: dict[str, Tensor] = field(default_factory=dict)
    """What the pool keeps of the base's predictions, by name; the properties below read it."""

    @property
    def hidden_BTD(self) -> Tensor:
        """The base's final hidden states, of a pool that keeps them."""
        return self.kept["hidden"]

    @property
    def top_ids_BTK(self) -> Tensor:
        """The base's likeliest words, int32, of a topk pool."""
        return self.kept["top_ids"]

    @property
    def top_log_probs_BTK1(self) -> Tensor:
        """Their log-probabilities and, last, that of all other words, fp16, of a topk pool."""
        return self.kept["top_log_probs"]

    @property
    def inputs_BT(self) -> Tensor:
        """What the model reads."""
        return self.tokens_BT1[:, :-1]

    @property
    def targets_BT(self) -> Tensor:
        """What the base wrote next."""
        return self.tokens_BT1[:, 1:]

    def to(self, device: torch.device) -> ReplayBatch:
        """The same rows on another device."""
        kept = {name: tensor.to(device) for name, tensor in self.kept.items()}
        return ReplayBatch(tokens_BT1=self.tokens_BT1.to(device), kept=kept)


@dataclass(kw_only=True)
class ReplayPool:
    """A finished pool, memory-mapped. Make one with `sample_pool` or `text_pool`, open one with `ReplayPool.open`."""

    folder: Path
    settings: PoolSettings
    rows: int
    shards: list[dict[str, Any]]
    _open: dict[int, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> ReplayPool:
        """Open a pool and verify every checksum.

        Raises:
            SourceNotFound: no pool there.
            PoolError: unfinished, truncated, or a byte of it changed.
        """
        pool = read_manifest(Path(folder))
        if pool is None:
            raise SourceNotFound(f"no replay pool at {folder}", "make one with: keeptune replay MODEL --out FOLDER")
        if pool.rows_written < pool.rows:
            raise PoolError(
                f"the replay pool {folder} is unfinished: {pool.rows_written} of {pool.rows} rows",
                "run the same keeptune replay command again: it goes on where it stopped",
            )
        for shard in pool.shards:
            pool.verify(shard)
        return pool

    @property
    def rows_written(self) -> int:
        """Rows in finished shards."""
        return sum(shard["rows"] for shard in self.shards)

    @property
    def tokens(self) -> int:
        """Targets in the pool."""
        return self.rows * self.settings.length

    def verify(self, shard: dict[str, Any]) -> None:
        """Raise `PoolError` unless the shard's bytes are the ones that were written."""
        path = self.folder / shard["file"]
        if not path.is_file() or sha256_file(path) != shard["sha256"]:
            raise PoolError(
                f"the replay pool is damaged: {path} is missing, truncated or changed",
                f"delete {self.folder} and make the pool again",
            )

    def check_base(self, fingerprint: str) -> None:
        """Raise `PoolMismatch` unless the base with this fingerprint wrote the pool."""
        if fingerprint != self.settings.base:
            raise PoolMismatch(
                f"the replay pool {self.folder} was written by another base model"
                f" (pool {self.settings.base[:12]}, model {fingerprint[:12]})",
                "make a pool from this model with: keeptune replay MODEL --out FOLDER",
            )

    def batch(self, rows: Tensor) -> ReplayBatch:
        """The rows with these indices, in this order."""
        located = [self._locate(row) for row in rows.tolist()]

        def read(name: str) -> Tensor:
            slices = [self._mapped(shard).get_slice(name)[offset : offset + 1] for shard, offset in located]
            return torch.cat(slices)

        kept = {name: read(name) for name in _KEPT[self.settings.predictions]}
        return ReplayBatch(tokens_BT1=read("tokens").long(), kept=kept)

    def tokens_of(self, row: int) -> Tensor:
        """The ids of one row, int64 [T + 1]."""
        shard, offset = self._locate(row)
        return self._mapped(shard).get_slice("tokens")[offset].long()

    def _locate(self, row: int) -> tuple[int, int]:
        ends = list(accumulate(shard["rows"] for shard in self.shards))
        shard = bisect_right(ends, row)
        return shard, row - (ends[shard - 1] if shard else 0)

    def _mapped(self, shard: int) -> Any:
        if shard not in self._open:
            path = self.folder / self.shards[shard]["file"]
            try:
                self._open[shard] = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise PoolError(
                    f"the replay pool is damaged: cannot read {path}", f"delete {self.folder} and make the pool again"
                ) from error
        return self._open[shard]

    def append(self, tokens_RT1: Tensor, kept: dict[str, Tensor]) -> None:
        """Write the next shard, with the tensors that are kept of its predictions, then the manifest that knows it."""
        name = f"shard-{len(self.shards):05d}.safetensors"
        with atomic_file(self.folder / name) as temporary:
            tensors = {"tokens": tokens_RT1.int(), **kept}
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, temporary)
        digest = sha256_file(self.folder / name)
        self.shards.append({"file": name, "rows": tokens_RT1.shape[0], "sha256": digest})
        self.write_manifest()

    def write_manifest(self) -> None:
        """Write `manifest.json` atomically."""
        content = {"format": _FORMAT, "rows": self.rows, "settings": asdict(self.settings), "shards": self.shards}
        write_json(self.folder / _MANIFEST, content)


def read_manifest(folder: Path) -> ReplayPool | None:
    """The pool that stands in `folder`, finished or not; None where there is none.

    Raises:
        PoolError: the manifest cannot be read or is of another format.
    """
    path = folder / _MANIFEST
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}")
        for shard in content["shards"]:
            if Path(shard["file"]).name != shard["file"]:
                raise ValueError(f"shard outside the folder: {shard['file']}")
        settings = PoolSettings(**content["settings"])
        if settings.predictions not in _KEPT:
            raise ValueError(f"predictions {settings.predictions}")
        return ReplayPool(folder=folder, settings=settings, rows=content["rows"], shards=content["shards"])
    except (ValueError, KeyError, TypeError) as error:
        raise PoolError(
            f"the replay pool's manifest {path} cannot be read ({error})", f"delete {folder} and make the pool again"
        ) from error


def start_pool(folder: Path, settings: PoolSettings, rows: int) -> ReplayPool:
    """A pool to append to: new, or the unfinished one of the same settings that stands there.

    A finished pool of the same settings with fewer rows is grown.

    Raises:
        OutputExists: `folder` holds a pool of other settings, or something that is no pool.
        PoolError: a shard that stands there is damaged.
    """
    pool = read_manifest(folder)
    if pool is None:
        if folder.exists() and any(folder.iterdir()):
            raise OutputExists(f"{folder} is not empty and holds no replay pool", "choose another --out")
        pool = ReplayPool(folder=folder, settings=settings, rows=rows, shards=[])
    differing = [key for key, value in asdict(settings).items() if asdict(pool.settings)[key] != value]
    if differing:
        raise OutputExists(
            f"{folder} holds a replay pool with other settings ({', '.join(differing)})",
            "choose another --out, or delete that folder first",
        )
    pool.rows = max(pool.rows, rows)
    pool.write_manifest()
    for shard in pool.shards:
        pool.verify(shard)
    return pool
