"""Drift to be read: the passages of a text that drifted most, and what both models write after the same beginnings.

Shapes: N target tokens of a window, W of a passage, S passages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.answers import answer
from keeptune.data.rows import IGNORED_LABEL
from keeptune.data.tokens import EncodedRow
from keeptune.stats import Array, evenly_spaced
from keeptune.workspace import Steps

Classes = npt.NDArray[np.int64]

PASSAGE_TOKENS = 32
PASSAGES = 20
OF_ONE_DOCUMENT = 2
COPIED_TOKENS = 8
_CONTEXT_TOKENS = 12
UNDECODABLE = "\ufffd"
CONTINUATIONS = 6
PROMPT_TOKENS = 24
NEW_TOKENS = 48


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A stretch of a text, token by token."""

    document: str
    context: str
    """The text before it in the window."""
    ids: list[int]
    kl: list[float]
    """The KL of each token, nats."""
    mean_kl: float
    tokens: list[str] | None = None
    """The text of each token; joined, that of the passage."""
    text: str = ""
    """The name of the text that it stands in."""


@dataclass(frozen=True, kw_only=True)
class Continuation:
    """What both models write after the same beginning; special tokens are written out."""

    text: str
    document: str
    prompt: str
    base: str
    tuned: str


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """The beginning of a document."""

    text: str
    document: str
    input_ids: list[int]


class WorstPassages:
    """The passages with the highest mean KL: `PASSAGES` at most, `OF_ONE_DOCUMENT` of one, none overlapping another.

    A passage is `PASSAGE_TOKENS` target tokens that follow each other in a window; shorter stretches are none. The
    worst passage of a window is found first, then the worst that does not overlap it. Of passages that have a run of
    `COPIED_TOKENS` tokens in common, such as a licence that stands in many documents, one is kept.
    """

    def __init__(self) -> None:
        self._kept: list[Passage] = []

    def add(self, document: str, ids: list[int], position_N: Classes, kl_N: Array) -> None:
        """Look at one window: its token ids, the positions of its targets, and their KL in nats."""
        if len(kl_N) < PASSAGE_TOKENS:
            return
        mean_S = sliding_window_view(kl_N, PASSAGE_TOKENS).mean(axis=1)
        gapless_S = position_N[PASSAGE_TOKENS - 1 :] - position_N[: len(mean_S)] == PASSAGE_TOKENS - 1
        mean_S = np.where(gapless_S, mean_S, -np.inf)
        for _ in range(OF_ONE_DOCUMENT):
            start = int(mean_S.argmax())
            if mean_S[start] == -np.inf:
                return
            first = int(position_N[start])
            passage = Passage(
                document=document,
                context="",
                ids=ids[max(0, first - _CONTEXT_TOKENS) : first + PASSAGE_TOKENS],
                kl=kl_N[start : start + PASSAGE_TOKENS].tolist(),
                mean_kl=float(mean_S[start]),
            )
            self._kept = worst([*self._kept, passage])
            mean_S[max(0, start - PASSAGE_TOKENS + 1) : start + PASSAGE_TOKENS] = -np.inf

    def decoded(self, tokenizer: PreTrainedTokenizerBase) -> list[Passage]:
        """The passages with their text, the worst first."""
        passages = []
        for passage in self._kept:
            texts = pieces(tokenizer, passage.ids)
            before = len(passage.ids) - PASSAGE_TOKENS
            passages.append(
                replace(passage, ids=passage.ids[before:], context="".join(texts[:before]), tokens=texts[before:])
            )
        return passages


def worst(passages: Iterable[Passage]) -> list[Passage]:
    """The worst of these passages, the worst first; no copy of a worse one, few of one document."""
    kept: list[Passage] = []
    of_document: Counter[tuple[str, str]] = Counter()
    seen: set[tuple[int, ...]] = set()
    for passage in sorted(passages, key=lambda passage: -passage.mean_kl):
        document, ids = (passage.text, passage.document), passage.ids[-PASSAGE_TOKENS:]
        starts = range(PASSAGE_TOKENS - COPIED_TOKENS + 1)
        runs = {tuple(ids[start : start + COPIED_TOKENS]) for start in starts}
        if of_document[document] < OF_ONE_DOCUMENT and seen.isdisjoint(runs):
            kept.append(passage)
            of_document[document] += 1
            seen |= runs
    return kept[:PASSAGES]


def pieces(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """The text of each token, so that the pieces joined are the text of them all.

    A character of several tokens belongs to the last of them, and the others have no text.
    """
    texts: list[str] = []
    settled = 0
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False)
        whole = text if end == len(ids) else text.rstrip(UNDECODABLE)
        texts.append(whole[settled:])
        settled = max(settled, len(whole))
    return texts


def continuations(
    base: PreTrainedModel,
    tuned: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: dict[str, list[EncodedRow]],
    steps: Steps,
) -> list[Continuation]:
    """Greedy continuations of both models, side by side.

    Args:
        texts: the rows of each text, by its name, as `measure` takes them; the beginnings of `CONTINUATIONS` documents
            are continued, spread evenly over the texts and over their documents.
        steps: keeps what each model wrote.
    """
    chosen = beginnings(texts)
    prompts = [start.input_ids for start in chosen]
    steps = steps.of(prompts=prompts, new_tokens=NEW_TOKENS)
    written = {}
    for name, model in (("base", base), ("tuned", tuned)):
        write = partial(answer, model, prompts, NEW_TOKENS, f"Continuing texts, {name}")
        written[name] = steps.once(f"continuations of the {name}", write)
    return [
        Continuation(
            text=start.text,
            document=start.document,
            prompt=str(tokenizer.decode(start.input_ids)),
            base=str(tokenizer.decode(written["base"][index])),
            tuned=str(tokenizer.decode(written["tuned"][index])),
        )
        for index, start in enumerate(chosen)
    ]


def beginnings(texts: dict[str, list[EncodedRow]]) -> list[Beginning]:
    """The beginnings of at most `CONTINUATIONS` documents.

    A beginning goes on for `PROMPT_TOKENS` from the token before the first target: what precedes it, a system prompt
    perhaps, may be the same in all documents.
    """
    chosen: list[Beginning] = []
    for number, (text, rows) in enumerate(texts.items()):
        first: dict[str, list[int]] = {}
        for row in rows:
            if row["document"] not in first:
                targets = (position for position, label in enumerate(row["labels"][1:]) if label != IGNORED_LABEL)
                first[row["document"]] = row["input_ids"][: next(targets, 0) + PROMPT_TOKENS]
        documents = list(first.items())
        # The texts share the number of continuations, the earlier ones get what is over.
        wanted = CONTINUATIONS // len(texts) + (number < CONTINUATIONS % len(texts))
        for place in evenly_spaced(len(documents), wanted):
            document, ids = documents[place]
            chosen.append(Beginning(text=text, document=document, input_ids=ids))
    return chosen
