"""What candidates are read on: text of the base's own, of the tuned model's own, and the task's where it is given.

The pools hold the hidden states of the model that wrote them, so that neither model is needed to read a candidate. A
pool's rows serve one purpose each: choosing, then certifying or holding out, then training.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import torch
from datasets import Dataset

from keeptune.data.documents import load_documents, split_documents
from keeptune.data.encode import encode
from keeptune.data.tokens import EncodedRow
from keeptune.errors import ConfigError, SourceError
from keeptune.log import logger
from keeptune.models.limits import check_length
from keeptune.models.modeling import head_of, training_dtype
from keeptune.models.vocabulary import document_start
from keeptune.objective import Head
from keeptune.repair.pair import Names, Pair
from keeptune.repair.settings import RepairSettings
from keeptune.replay.batch import ReplayBatch
from keeptune.replay.generate import sample_pool
from keeptune.replay.openings import Prompts, chat_opening
from keeptune.replay.pool import ReplayPool
from keeptune.replay.teachers import CachedHidden
from keeptune.stats import evenly_spaced

_HELD_OUT, _CHOOSING = 0.25, 1 / 3
_OFFERED = "prompts is document, and the tuned model has a chat template: --prompts mixed keeps its chats too"


@dataclass(frozen=True, kw_only=True)
class OwnText:
    """Text that one model wrote, with its predictions."""

    pool: ReplayPool
    head: Head
    """Of the model that wrote it."""
    choosing: range
    fresh: range
    """Rows that nothing is chosen on."""
    training: range

    def batch(self, rows: range) -> ReplayBatch:
        """Some rows, with their hidden states."""
        return self.pool.batch(torch.tensor(rows))

    @property
    def teacher(self) -> CachedHidden:
        """The model's predictions, for training."""
        return CachedHidden(self.head)


@dataclass(frozen=True, kw_only=True)
class TaskText:
    """Encoded rows of the task, apart by document."""

    source: str
    choosing: list[EncodedRow]
    fresh: list[EncodedRow]
    training: list[EncodedRow] = field(default_factory=list)


def task_text(settings: RepairSettings, names: Names) -> TaskText | None:
    """The task's text, read before any model is loaded.

    Raises:
        SourceError: no such text, or too few documents to split in three.
    """
    source = settings.task_text
    if source is None:
        return None
    documents = load_documents(source, skip_bad_rows=settings.skip_bad_rows)
    count = len(set(documents["document"]))
    if count < 4:
        raise SourceError(
            f"--task-text {source} has {count} documents, too few to choose on some and hold out others",
            "give four documents or more: one a file of a folder, or one a row of a .jsonl",
        )
    rest, fresh = split_documents(documents, _HELD_OUT, settings.seed)
    training, choosing = split_documents(rest, _CHOOSING, settings.seed)
    parts = {"choosing": choosing, "held-out": fresh, "training": training}
    rows = {part: _encoded(of_part, names, settings, part) for part, of_part in parts.items()}
    few = {part: _spread(rows[part], settings.rows) for part in ("choosing", "held-out")}
    return TaskText(source=source, choosing=few["choosing"], fresh=few["held-out"], training=rows["training"])


def _encoded(documents: Dataset, names: Names, settings: RepairSettings, part: str) -> list[EncodedRow]:
    start, _ = document_start(names.tokenizer, override=settings.document_start)
    rows = encode(documents, names.tokenizer, max_length=settings.max_length, document_start=start, part=part)
    return list(rows)


def _spread(rows: list[EncodedRow], most: int) -> list[EncodedRow]:
    return [rows[place] for place in evenly_spaced(len(rows), most)]


def write_texts(pair: Pair, settings: RepairSettings) -> tuple[OwnText, OwnText]:
    """Let both models write, the base first; the model is the tuned one afterwards. Resumes unfinished pools."""
    check_length(pair.model, settings.length, "rows")
    base_prompts = _prompts(settings, pair.names.base, pair.names.base_tokenizer)
    tuned_prompts = _prompts(settings, pair.names.tuned, pair.names.tokenizer)
    if settings.prompts == "document" and pair.names.tokenizer.chat_template:
        logger.info(_OFFERED)
    pair.change.place_base()
    base = _written(pair, settings, "base", base_prompts, settings.certificate_rows)
    pair.change.place_tuned()
    tuned = _written(pair, settings, "tuned", tuned_prompts, settings.rows)
    return base, tuned


def _prompts(settings: RepairSettings, name: str, tokenizer: object) -> Prompts:
    """How the model's text starts: as asked for, but for a model that knows no chats."""
    if settings.prompts == "document":
        return "document"
    try:
        chat_opening(tokenizer)
    except ConfigError as error:
        if name == settings.tuned:
            raise
        logger.info(f"{name} writes documents, no chats: {error.what}")
        return "document"
    return settings.prompts


def _written(pair: Pair, settings: RepairSettings, who: str, prompts: Prompts, fresh: int) -> OwnText:
    rows = settings.rows + fresh + settings.tuning_rows
    tokenizer = pair.names.base_tokenizer if who == "base" else pair.names.tokenizer
    # An adapter beside a quantized base is at strength 0 or 1 by its factors; it is never disabled.
    pool = sample_pool.__wrapped__(  # type: ignore[attr-defined]
        pair.model,
        tokenizer,
        settings.folder / f"{who}-text",
        tokens=rows * settings.length,
        length=settings.length,
        seed=settings.seed,
        start=settings.document_start,
        prompts=prompts,
        dtype=training_dtype(pair.model),
    )
    head = head_of(pair.model).detached()
    ends = [0, settings.rows, settings.rows + fresh, rows]
    parts = [range(first, last) for first, last in pairwise(ends)]
    return OwnText(pool=pool, head=head, choosing=parts[0], fresh=parts[1], training=parts[2])


def cache_folder(settings: RepairSettings) -> Path:
    """Where the weights of both ends lie while a repair runs."""
    return settings.folder / "cache"
