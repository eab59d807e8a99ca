"""What both models write after the same beginnings."""

from __future__ import annotations

from functools import partial
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.answers import answer
from keeptune.data.rows import IGNORED_LABEL
from keeptune.stats import evenly_spaced
from keeptune.workspace import Steps

CONTINUATIONS = 6
PROMPT_TOKENS = 24
NEW_TOKENS = 48


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
