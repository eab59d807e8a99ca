"""From documents to token rows: which tokens the model reads, and on which of them it is trained.

`labels` stand at the position of their own token, as in `input_ids`; −100 means no loss. The loss shifts them by one.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import islice
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from keeptune.data.chat import Chats
from keeptune.data.documents import load_documents, text_documents
from keeptune.data.rows import LAYOUTS, SEED, Tokenize, accepted_columns, checked, layout_of
from keeptune.data.templates import RENDERING_ERRORS, Renderer, own_template
from keeptune.data.tokens import IGNORED_LABEL, special_tokens, windows
from keeptune.errors import ConfigError, SourceError
from keeptune.log import logger, track
from keeptune.models.vocabulary import document_start as find_document_start


def encode(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    document_start: int | None,
    append_eos: bool = True,
    part: str = "",
) -> Dataset:
    """Tokenize documents, as from `load_documents`, for training.

    Text is cut into consecutive windows of up to `max_length` tokens, at least 2. A window starts with the last token
    of the window before, so that each token of a document except the first is a target exactly once. Prompts with
    completions and chats stay whole; those longer than `max_length` are left out, and their number is logged.

    `document_start` is the id of the token before each text, or None; a text that begins with it, with the BOS or as
    the chat template does gets none. Prompts start as the tokenizer starts any input, and chats as the chat template
    says. With `append_eos` each text ends in the EOS, as in TRL. `part`, such as `held-out`, says in messages which
    documents are meant. Returns the columns `input_ids` and `labels` (lists of int of equal length) and `document`
    (str), in the given order.

    Raises `ConfigError` if `max_length` is too small or the tokenizer cannot render chats, `SourceError` for no
    accepted columns, or no row to train on.
    """
    if max_length < 2:
        raise ConfigError(f"a context of {max_length} tokens has nothing to predict", "use 2 or more")
    layout = layout_of(dataset.column_names)
    if layout is None:
        raise SourceError(f"the data set has the columns {', '.join(dataset.column_names)}", accepted_columns())
    documents = ({**checked(row, row["document"]), "document": row["document"]} for row in dataset)
    tokenize = _tokenize(dataset, tokenizer, append_eos=append_eos)
    columns: dict[str, list[Any]] = {"input_ids": [], "labels": [], "document": []}
    too_long: list[int] = []
    without_loss = 0
    with track("tokenizing", len(dataset), "documents") as task:
        for document in documents:
            used = 0
            for input_ids, labels in tokenize(document, tokenizer, max_length, document_start):
                if len(input_ids) > max_length:
                    too_long.append(len(input_ids))
                elif any(label != IGNORED_LABEL for label in labels[1:]):
                    columns["input_ids"].append(input_ids)
                    columns["labels"].append(labels)
                    columns["document"].append(document["document"])
                else:
                    continue
                used += 1
            without_loss += used == 0
            task.advance()
    _report(len(dataset), len(columns["document"]), too_long, without_loss, max_length, f"{part} " if part else "")
    if part != "held-out":  # said of the training rows, and no other of these
        if isinstance(tokenize, Chats):
            tokenize.report()
        _report_ends(columns["labels"], tokenizer)
    return Dataset.from_dict(columns)


def _tokenize(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, *, append_eos: bool) -> Tokenize:
    """How the documents of one data set become token rows."""
    row = dataset[0] if len(dataset) else dict.fromkeys(dataset.column_names, "")
    layout = layout_of(checked(row, row["document"])) if len(dataset) else None
    if layout is None:
        return lambda *_: iter(())
    if layout.start is not None:
        return layout.start(tokenizer)
    if layout.tokenize is None:
        raise TypeError(f"the layout {' and '.join(layout.columns)} has neither tokenize nor start")
    if layout is not LAYOUTS["text"]:
        return layout.tokenize
    end = tokenizer.eos_token_id if append_eos else None
    starts = _text_starts(tokenizer)
    return lambda document, *given: windows(str(document["text"]), *given, starts=starts, end=end)


def _text_starts(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids with which a text that has its own beginning starts: the BOS, and what opens a rendered chat."""
    starts = {tokenizer.bos_token_id} - {None}
    if tokenizer.chat_template:
        special = set(special_tokens(tokenizer).values())
        for roles in (("user",), ("system", "user")):
            turns = [{"role": role, "content": "x"} for role in roles]
            try:
                text = Renderer(tokenizer, own_template(tokenizer))(turns)
            except (ConfigError, *RENDERING_ERRORS):
                continue
            starts |= {*tokenizer(text, add_special_tokens=False)["input_ids"][:1]} & special
    return frozenset(starts)


def whole_rows(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, *, length: int, document_start: int
) -> Generator[tuple[str, list[int]]]:
    """Cut text into rows of one length, for replay and drift readings.

    Each document is cut into consecutive pieces of `length` tokens; the rest after the last whole piece is dropped.
    Yields its name and `length` + 1 ids: `document_start`, then the piece. Raises `ConfigError` for prompts or chats,
    which cannot be cut.
    """
    if "text" not in dataset.column_names:
        raise ConfigError(
            f"documents of {' and '.join(n for n in dataset.column_names if n != 'document')} cannot be cut into rows",
            "give documents of plain text (a column text)",
        )
    with track("tokenizing", len(dataset), "documents") as task:
        for document in dataset:
            for window, _ in windows(document["text"], tokenizer, length + 1, document_start):
                if len(window) == length + 1:
                    yield document["document"], [document_start, *window[1:]]
            task.advance()


def text_rows(
    texts: str | Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    tokens: int | None,
    length: int,
    seed: int = SEED,
    start: str | int | None = None,
    skip_bad_rows: bool = False,
) -> Tensor:
    """Cut documents, in random order, into rows of one length: at least `tokens` targets, or all there are if None.

    The rows of a document stay together. The last rows of a pool, which are held out for drift readings, therefore come
    from documents that training does not see, except for the document at the boundary.

    Args:
        texts: plain texts, one string a document, or the name of a data set of plain text, as for `load_documents`.
        length: targets per row (T); the rest of a document after its last whole row is dropped.
        seed: seed of the order of documents.
        start: the document-start token, as text or id, if the detected one is wrong.
        skip_bad_rows: leave out rows of a data set that cannot be read; see `load_documents`.

    Returns: int64 [R, T + 1]: the document-start token, then T targets.

    Raises `SourceError` if no data set has that name or there are no texts, `ConfigError` if no document is as long as
    a row, or the documents are prompts or chats.
    """
    name = texts if isinstance(texts, str) else "the texts"
    documents = load_documents(texts, skip_bad_rows=skip_bad_rows) if isinstance(texts, str) else text_documents(texts)
    token, _ = find_document_start(tokenizer, override=start)
    order = torch.randperm(len(documents), generator=torch.Generator().manual_seed(seed))
    wanted = None if tokens is None else math.ceil(tokens / length)
    with closing(whole_rows(documents.select(order.tolist()), tokenizer, length=length, document_start=token)) as cut:
        rows = [row for _, row in islice(cut, wanted)]
    if not rows:
        raise ConfigError(
            f"no document of {name} has {length} tokens for a row", "give longer documents, or a lower --length"
        )
    if wanted is not None and len(rows) < wanted:
        logger.warning(f"{name} gives {len(rows)} rows of {length} tokens, fewer than the {wanted} asked for")
    return torch.tensor(rows)


def _report(documents: int, rows: int, too_long: list[int], without_loss: int, max_length: int, part: str) -> None:
    more = ", or hold out more documents (--held-out)" if part == "held-out " else ""
    if not rows and too_long:
        raise SourceError(
            f"every {part}row is longer than the context of {max_length} tokens",
            f"raise --max-length to at least {min(too_long)} (the longest row needs {max(too_long)}){more}",
        )
    if not rows:
        raise SourceError(
            f"no {part}document has a token to predict",
            f"give documents with text, completions or assistant turns{more}",
        )
    if too_long:
        logger.warning(
            f"left out {len(too_long)} of {documents} {part}rows: longer than the context of {max_length} tokens"
        )
    if without_loss:
        logger.warning(f"left out {without_loss} of {documents} {part}documents: no token to predict")


def _report_ends(labels: list[list[int]], tokenizer: PreTrainedTokenizerBase) -> None:
    """Warn if no answer ends in a special token: a model that is not trained to stop goes on."""
    special, answered = set(special_tokens(tokenizer).values()), False
    for row in labels:
        if IGNORED_LABEL not in row:
            continue
        answered = True
        after = [*row[1:], IGNORED_LABEL]
        ends = [place for place, label in enumerate(row) if label != IGNORED_LABEL == after[place]]
        # White space may follow the token.
        if any(not special.isdisjoint(row[max(end - 2, 0) : end + 1]) for end in ends):
            return
    if answered:
        logger.warning(
            "no answer ends in a special token, so that the model is not trained to stop: check the chat template and "
            "the tokenizer's eos_token"
        )
