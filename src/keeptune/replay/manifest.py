"""A pool's manifest: the settings that determine the pool's bytes, and the checksum of every shard.

The file is `manifest.json` in format 2. Format 1, of version 0.1, is read too: there the opening of a chat after its
first token counted as targets.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NotRequired, cast

from typing_extensions import TypedDict  # pydantic reads typing's from Python 3.12 on

from keeptune.codec import JsonValue, from_json
from keeptune.errors import PoolError
from keeptune.storage import write_json

Predictions = Literal["hidden", "topk", "none"]
Opening = Literal["auto", "start", "twice", "newline", "text", "start-text"]

MANIFEST = "manifest.json"
_FORMAT = 2


def describe_sampling(temperature: float) -> str:
    """How tokens are sampled, for `PoolSettings.sampling`."""
    number = str(float(temperature)).removesuffix(".0")
    return f"ancestral, temperature {number}, no top-k, no top-p, nothing stops a row"


# The base's own distribution.
SAMPLING = describe_sampling(1.0)
DEFAULT_ENGINE = "torch"


class Probed(TypedDict):
    """The numbers of one candidate opening, as `keeptune.replay.openings.probe.Probe` has them."""

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


class _Content(TypedDict):
    format: int
    rows: int
    settings: dict[str, JsonValue]
    shards: list[Shard]
    checksum: NotRequired[str]
    """sha256 of the other fields; earlier versions wrote none."""


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
    """What the base predicts after each candidate opening, as `keeptune.replay.openings.probe` reads it; empty for a
    pool without candidates."""
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


@dataclass(kw_only=True)
class Manifest:
    """What `manifest.json` holds of a pool, finished or not."""

    settings: PoolSettings
    rows: int
    """Rows of the finished pool."""
    shards: list[Shard]
    """Written shards, in their order."""

    @property
    def rows_written(self) -> int:
        """Number of rows in finished shards."""
        return sum(shard["rows"] for shard in self.shards)

    @property
    def tokens(self) -> int:
        """Number of targets in the pool."""
        return self.rows * self.settings.length

    def save(self, folder: Path) -> None:
        """Write `manifest.json` atomically."""
        settings = asdict(self.settings)
        if self.settings.engine == DEFAULT_ENGINE:
            del settings["engine"]  # earlier versions do not know this field
        content = {"format": _FORMAT, "rows": self.rows, "settings": settings, "shards": self.shards}
        write_json(folder / MANIFEST, {**content, "checksum": _checksum(content)})


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of the pool in `folder`; None if the folder contains no pool.

    Raises `PoolError` if the manifest cannot be read or has another format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        content = from_json(_Content, path.read_bytes())
        if content["format"] not in (1, _FORMAT):
            raise ValueError(f"format {content['format']}")
        for shard in content["shards"]:
            if Path(shard["file"]).name != shard["file"]:
                raise ValueError(f"shard outside the folder: {shard['file']}")
        given = _of_format_1(content["settings"]) if content["format"] == 1 else content["settings"]
        if unknown := given.keys() - {of.name for of in fields(PoolSettings)}:
            raise ValueError(f"unknown settings {', '.join(sorted(unknown))}")
        settings = from_json(PoolSettings, cast(JsonValue, given))
        if "checksum" in content and content["checksum"] != _checksum(json.loads(path.read_bytes())):
            raise ValueError("it is not as it was written")
        return Manifest(settings=settings, rows=content["rows"], shards=content["shards"])
    except (ValueError, KeyError, TypeError) as error:
        raise PoolError(
            f"the replay pool's manifest {path} cannot be read ({error})", f"delete {folder} and make the pool again"
        ) from error


def _checksum(content: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in content.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _of_format_1(settings: dict[str, JsonValue]) -> Mapping[str, object]:
    """Settings of version 0.1: each start token and a chat's opening after it, whose tokens counted as targets."""
    rest, more = (from_json(list[int], settings.get(name, [])) for name in ("opening", "more_starts"))
    starts, length = [from_json(int, settings["start_token"]), *more], from_json(int, settings["length"])
    name = "chat" if settings.get("prompts") == "chat" else "start" if len(starts) == 1 else "given"
    openings = [[start, *rest] for start in starts]
    kept = {key: value for key, value in settings.items() if key != "more_starts"}
    return {**kept, "length": length - len(rest), "opening": name, "openings": openings}
