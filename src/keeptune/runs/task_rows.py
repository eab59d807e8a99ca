"""The rows of a run's data: what is trained on, and what is held out."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from keeptune.data.documents import read_documents, split_documents
from keeptune.data.encode import encode
from keeptune.models.vocabulary import document_start
from keeptune.runs.settings import TuneSettings
from keeptune.stats import evenly_spaced


class TaskRows(NamedTuple):
    """Encoded rows to train on, held-out rows of other documents, and how many bad rows were left out."""

    train: Dataset
    held_out: Dataset
    bad: int

    def longest(self, settings: TuneSettings) -> int:
        """Tokens of the longest row that the model reads."""
        if settings.sft.get("packing") and settings.sft.get("packing_strategy") == "wrapped":
            longest = settings.sft.get("max_length")
            # Other strategies count positions by document.
            return (longest if isinstance(longest, int) else 0) or settings.max_length
        return max(len(ids) for rows in (self.train, self.held_out) for ids in rows["input_ids"])


def task_rows(settings: TuneSettings, tokenizer: PreTrainedTokenizerBase) -> TaskRows:
    """The rows of a run's data."""
    loaded, bad = read_documents(settings.data, skip_bad_rows=settings.skip_bad_rows)
    start, _ = document_start(tokenizer, override=settings.document_start)
    documents, held_out = split_documents(loaded, settings.held_out, settings.seed)
    encoded = partial(encode, tokenizer=tokenizer, max_length=settings.max_length, document_start=start)
    rows = encoded(documents, append_eos=settings.append_eos, part="training")
    held_out_rows = encoded(held_out, append_eos=settings.append_eos, part="held-out")
    chosen = held_out_rows.select(evenly_spaced(len(held_out_rows), settings.held_out_rows))
    return TaskRows(train=rows, held_out=chosen, bad=len(bad))
