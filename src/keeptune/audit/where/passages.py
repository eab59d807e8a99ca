"""Drift to be read: the passages of a text that drifted most, and what both models write after the same beginnings.

Shapes: N target tokens of a window, W of a passage, S passages.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.answers import answer
from keeptune.data.rows import IGNORED_LABEL
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


class WorstPassages:
    """The passages with the highest mean KL: `PASSAGES` at most, `OF_ONE_DOCUMENT` of one, none overlapping another.

    A passage is `PASSAGE_TOKENS` target tokens that follow each other in a window; shorter stretches are none. The
    worst passage of a window is found first, then the worst that does not overlap it. Of passages that have a run of
    `COPIED_TOKENS` tokens in common, such as a licence that stands in many documents, one is kept.
    """

    def __init__(self) -> None:
        self._kept: list[dict[str, Any]] = []

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
            passage = {
                "document": document,
                "context": ids[max(0, first - _CONTEXT_TOKENS) : first],
                "tokens": ids[first : first + PASSAGE_TOKENS],
                "kl": kl_N[start : start + PASSAGE_TOKENS].tolist(),
                "mean_kl": float(mean_S[start]),
            }
            self._kept = worst([*self._kept, passage])
            mean_S[max(0, start - PASSAGE_TOKENS + 1) : start + PASSAGE_TOKENS] = -np.inf

    def decoded(self, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, Any]]:
        """The passages, the worst first, for JSON.

        Returns:
            Each with its `document`; `context`, the text before it in the window; `tokens`, which joined are its text;
            `kl`, the KL of each of them and `mean_kl`, in nats.
        """
        passages = []
        for passage in self._kept:
            texts = pieces(tokenizer, passage["context"] + passage["tokens"])
            before = len(passage["context"])
            passages.append({**passage, "context": "".join(texts[:before]), "tokens": texts[before:]})
        return passages


def worst(passages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The worst of these passages, the worst first; no copy of a worse one, few of one document."""
    kept: list[dict[str, Any]] = []
    of_document: Counter[tuple[str, str]] = Counter()
    seen: set[tuple[Any, ...]] = set()
    for passage in sorted(passages, key=lambda passage: -passage["mean_kl"]):
        document = (passage.get("text", ""), passage["document"])
        starts = range(PASSAGE_TOKENS - COPIED_TOKENS + 1)
        runs = {tuple(passage["tokens"][start : start + COPIED_TOKENS]) for start in starts}
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
    texts: dict[str, list[dict[str, Any]]],
    steps: Steps,
) -> list[dict[str, str]]:
    """Greedy continuations of both models, side by side, for JSON.

    Args:
        texts: the rows of each text, by its name, as `measure` takes them; the beginnings of `CONTINUATIONS` documents
            are continued, spread evenly over the texts and over their documents.
        steps: keeps what each model wrote.

    Returns:
        Each with `text`, `document`, `prompt`, `base` and `tuned`; special tokens are written out.
    """
    chosen = beginnings(texts)
    prompts = [start["input_ids"] for start in chosen]
    steps = steps.of(prompts=prompts, new_tokens=NEW_TOKENS)
    written = {}
    for name, model in (("base", base), ("tuned", tuned)):
        write = partial(answer, model, prompts, NEW_TOKENS, f"Continuing texts, {name}")
        written[name] = steps.once(f"continuations of the {name}", write)
    return [
        {
            "text": start["text"],
            "document": start["document"],
            "prompt": tokenizer.decode(start["input_ids"]),
            **{name: tokenizer.decode(new[index]) for name, new in written.items()},
        }
        for index, start in enumerate(chosen)
    ]


def beginnings(texts: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The beginnings of at most `CONTINUATIONS` documents: `text`, `document` and `input_ids`.

    A beginning goes on for `PROMPT_TOKENS` from the token before the first target: what precedes it, a system prompt
    perhaps, may be the same in all documents.
    """
    chosen: list[dict[str, Any]] = []
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
            chosen.append({"text": text, "document": document, "input_ids": ids})
    return chosen
