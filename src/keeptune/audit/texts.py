"""The texts of an audit as rows to measure: the base's own fresh text, and what the user names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, Unpack

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.data.documents import load_documents
from keeptune.data.encode import encode
from keeptune.data.rows import IGNORED_LABEL, MAX_LENGTH
from keeptune.data.tokens import EncodedRow
from keeptune.errors import ConfigError
from keeptune.models.vocabulary import document_start
from keeptune.replay.batch import open_windows
from keeptune.replay.generate import sample_pool
from keeptune.replay.openings import Prompts, recorded_openings
from keeptune.stats import evenly_spaced
from keeptune.system import release

SELF = "self"
SELF_CHAT = "self-chat"
FRESH: dict[str, Prompts] = {SELF: "document", SELF_CHAT: "chat"}
NAME = re.compile(r"[A-Za-z0-9_][\w.-]*", re.ASCII)


class TextAmount(TypedDict):
    """How much of each text is read."""

    docs: int
    length: int
    windows: int
    seed: int
    skip_bad_rows: bool


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """The texts that both models read."""

    text: list[str] = field(default_factory=list)
    """NAME=SOURCE or an alias: a text to measure on, beside the base's own fresh text (self) and, for a chat model,
    its own fresh chats (self-chat), which are always read. Repeat it for more."""
    skip_bad_rows: bool = False
    """Leave out rows of --text that cannot be read; their number and the first of them are logged. By default the
    first such row is an error."""
    docs: int = 64
    """At most so many documents of each text, evenly spaced."""
    max_length: int = MAX_LENGTH
    """Tokens in a window of text."""
    windows: int = 4
    """At most so many windows of each document."""
    seed: int = 1
    """Seed of the fresh text."""

    @property
    def amount(self) -> TextAmount:
        """How much of each text is read, as `text_rows` takes it."""
        return {
            "docs": self.docs,
            "length": self.max_length,
            "windows": self.windows,
            "seed": self.seed,
            "skip_bad_rows": self.skip_bad_rows,
        }


def named_sources(given: Sequence[str], flag: str = "--text") -> dict[str, str]:
    """`["a=notes.txt", "pydoc"]` → `{"a": "notes.txt", "pydoc": "pydoc"}`.

    Raises:
        ConfigError: a source whose name is none, or two of one name.
    """
    sources: dict[str, str] = {}
    for entry in given:
        name, separator, source = entry.partition("=")
        source = source if separator else name
        if not NAME.fullmatch(name) or not source:
            fix = f"write {flag} NAME=SOURCE, such as {flag} mine=a.txt"
            raise ConfigError(f"{flag} {entry} has no plain name", fix)
        if name in sources:
            raise ConfigError(f"{flag} is given twice for {name}", "give each its own NAME")
        sources[name] = source
    return sources


def text_sources(given: Sequence[str], *, chat: bool) -> dict[str, str]:
    """The texts of an audit by name: the base's own text always, its own chats where it has a chat template."""
    fresh = [SELF, SELF_CHAT] if chat else [SELF]
    return named_sources([*fresh, *(text for text in given if text not in fresh)])


def text_rows(
    source: str,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    samples: Path,
    *,
    docs: int,
    length: int,
    windows: int,
    seed: int,
    skip_bad_rows: bool = False,
) -> list[EncodedRow]:
    """The rows of one text, ready for `measure`; `self` and `self-chat` are sampled into a folder below `samples`.

    Raises:
        SourceError: nothing to read.
    """
    if source in FRESH:
        folder = samples / source
        return self_rows(base, tokenizer, folder, docs=docs, length=length, seed=seed, prompts=FRESH[source])
    documents = load_documents(source, skip_bad_rows=skip_bad_rows)
    documents = documents.select(evenly_spaced(len(documents), docs))
    start, _ = document_start(tokenizer)
    rows: dict[str, list[EncodedRow]] = {}
    for row in encode(documents, tokenizer, max_length=length, document_start=start, append_eos=False):
        rows.setdefault(row["document"], []).append(row)
    return [row for of_document in rows.values() for row in of_document[:windows]]


def rows_of(
    sources: dict[str, str],
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    samples: Path,
    **amount: Unpack[TextAmount],
) -> dict[str, list[EncodedRow]]:
    """The rows of each text by name. What the user names is read first, so that it fails before the base samples."""
    named_first = sorted(sources, key=lambda name: sources[name] in FRESH)
    rows = {name: text_rows(sources[name], base, tokenizer, samples, **amount) for name in named_first}
    own = recorded_openings(samples / SELF)
    if own is not None:  # a text's documents begin as those of the base's own text do
        rows = {name: open_windows(rows[name], own.start_token, own.openings) for name in rows}
    return {name: rows[name] for name in sources}


def self_rows(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    docs: int,
    length: int,
    seed: int,
    prompts: Prompts = "document",
) -> list[EncodedRow]:
    """Fresh samples of the base, a document each; what opens a row is no target."""
    size = docs * (length - 1)
    pool = sample_pool(
        base, tokenizer, folder, tokens=size, length=length - 1, seed=seed, prompts=prompts, predictions="none"
    )
    release()
    rows: list[EncodedRow] = []
    for row in range(docs):
        tokens, given = pool.tokens_of(row).tolist(), len(pool.settings.opening_of(row))
        labels = [IGNORED_LABEL] * given + tokens[given:]
        rows.append({"input_ids": tokens, "labels": labels, "document": f"sample {row}"})
    return rows


def longest(rows: dict[str, list[EncodedRow]]) -> int:
    """Tokens of the longest row of all texts."""
    return max((len(row["input_ids"]) for of_text in rows.values() for row in of_text), default=0)


def without_tokens(rows: list[EncodedRow], tokens: set[int], words: int) -> list[EncodedRow]:
    """The rows that hold none of these tokens, and none whose id is `words` or above."""
    return [row for row in rows if max(row["input_ids"]) < words and tokens.isdisjoint(row["input_ids"])]
