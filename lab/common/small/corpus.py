"""Data of the small models: a tokenizer of the old and the new text, and rows of tokens of each, split by document.

Shapes: R rows, T targets a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from common.grid import Cell
from common.runner import once
from common.texts import source_of
from keeptune import load_documents
from keeptune.data.documents import split_documents
from keeptune.models.disk.wheels import cache_folder

START = "<|endoftext|>"
_HELD_OUT = 0.1
_SPLIT_SEED = 0
_TOKENIZER_CHARACTERS = 800_000


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Rows of one text: the start token and T tokens of one document. What is left of a document is dropped."""

    train_RT1: Tensor
    """int64 [R, T + 1], in the order of the documents."""
    held_out_RT1: Tensor
    """Rows of other documents, in random order."""


def corpus(cell: Cell, which: str) -> Corpus:
    """Rows of the cell's `old` or `new` text, as long as its `length`."""
    return _corpus(cell["old"], cell["new"], cell[which], cell["vocabulary"], cell["length"])


@cache
def _corpus(old: str, new: str, text: str, vocabulary: int, length: int) -> Corpus:
    tokenizer = _tokenizer(old, new, vocabulary)
    train, held_out = split_documents(load_documents(source_of(text)), _HELD_OUT, _SPLIT_SEED)
    held_out_RT1 = _rows(held_out["text"], tokenizer, length)
    order = torch.randperm(len(held_out_RT1), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    return Corpus(train_RT1=_rows(train["text"], tokenizer, length), held_out_RT1=held_out_RT1[order])


def _rows(texts: list[str], tokenizer: PreTrainedTokenizerFast, length: int) -> Tensor:
    start = [tokenizer.bos_token_id]
    rows = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        # Every row starts with the document start, as the rows that the model writes itself do.
        rows += [start + ids[first : first + length] for first in range(0, len(ids) - length + 1, length)]
    return torch.tensor(rows)


def tokenizer_of(cell: Cell) -> PreTrainedTokenizerFast:
    """Byte pairs of the old and the new text together, so that both are compressed alike."""
    return _tokenizer(cell["old"], cell["new"], cell["vocabulary"])


@cache
def _tokenizer(old: str, new: str, vocabulary: int) -> PreTrainedTokenizerFast:
    def make(folder: Path) -> None:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=[START], initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator((text for name in (old, new) for text in _training_texts(name)), trainer)
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=START, eos_token=START, pad_token=START)
        fast.save_pretrained(folder)

    name = "-".join(part.replace("/", "_") for part in (old, new, str(vocabulary)))
    return PreTrainedTokenizerFast.from_pretrained(once(cache_folder() / "lab" / "tokenizers" / name, make))


def _training_texts(name: str) -> list[str]:
    train, _ = split_documents(load_documents(source_of(name)), _HELD_OUT, _SPLIT_SEED)
    # The same number of characters of both texts, or most byte pairs would come from the longer one.
    taken, left = [], _TOKENIZER_CHARACTERS
    for text in train["text"]:
        taken.append(text[:left])
        left -= len(taken[-1])
        if left <= 0:
            break
    return taken
