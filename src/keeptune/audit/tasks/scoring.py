"""What a tuned model still answers right: multiple choice, scored by the log-likelihood of every option.

The question is `Question: …\\nAnswer:` and what is scored are the options' texts, for all data sets, as lm-eval has it
for ARC and, under `mmlu_continuation`, for MMLU. It is asked twice: plainly, an option following after a space; and as
a user's turn in the base's chat template, where an option is the whole of the assistant's answer, as lm-eval does
with `--apply_chat_template`. Of the rendered text only an option's own tokens are scored.

Shapes: C options of an item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from string import ascii_uppercase

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.answers import rendered, shared_prefix
from keeptune.audit.meter import measure
from keeptune.audit.tasks.items import Item, read_items
from keeptune.audit.texts import named_sources
from keeptune.data.rows import IGNORED_LABEL
from keeptune.data.tokens import EncodedRow
from keeptune.errors import SourceError
from keeptune.log import logger
from keeptune.models.limits import declared_positions
from keeptune.report.codec import once
from keeptune.stats import Array, evenly_spaced
from keeptune.workspace import Steps

HEADLINE = "per_character"
SCORINGS = {
    "per_character": "the option with the highest log-likelihood per character (lm-eval's acc_norm)",
    "raw_sum": "the option with the highest log-likelihood (lm-eval's acc)",
}
FORMATS = {"plain": "plainly", "chat": "in the chat template"}
_PROMPT = "Question: {question}\nAnswer:"
LEFT_OUT = "-"
ITEMS_LEFT_OUT = "items left out, longer than the context or without a finite score"
UNSCORED_FIX = "check the models, and that questions fit their context"


@dataclass(frozen=True, kw_only=True)
class Task:
    """A source of questions, and those of them that are asked."""

    source: str
    items: list[Item]
    readable: int
    """Items in the source."""
    flaws: list[str]
    """What is wrong with each row that holds no item."""


def load_tasks(tasks: Sequence[str], limit: int) -> dict[str, Task]:
    """`["arc", "mine=a.jsonl"]` → `{"arc": …, "mine": …}` with at most `limit` items, evenly spaced over the source.

    Raises:
        ConfigError: a task without a name, or two of one name.
        SourceError: a source that cannot be read or holds no item.
    """
    loaded: dict[str, Task] = {}
    for name, source in named_sources(tasks, "--task").items():
        items, flaws = read_items(source)
        if flaws:
            logger.warning(f"{name}: {len(flaws)} rows hold no item and are left out, the first is {flaws[0]}")
        chosen = [items[place] for place in evenly_spaced(len(items), limit)]
        loaded[name] = Task(source=source, items=chosen, readable=len(items), flaws=flaws)
    return loaded


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What both models chose of a task's items, a letter an item; `-` where an item was left out."""

    base: str
    tuned: str


@dataclass(frozen=True, kw_only=True)
class TaskAnswers:
    """Both models' answers to a task."""

    asked: list[str]
    """The names of the items."""
    right: str
    """The right options, a letter an item."""
    formats: dict[str, dict[str, Choices]]
    """By how it was asked (`plain`, and `chat` where the tokenizer has a template) and by each of `SCORINGS`."""


def measure_task(
    base: PreTrainedModel,
    tuned: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    name: str,
    steps: Steps,
) -> TaskAnswers:
    """Ask both models a task.

    Args:
        tokenizer: the base's, over whose vocabulary both models predict.
        name: what to call the task.
        steps: where the answers in each format are kept.

    Raises:
        ConfigError: the chat template cannot render a question.
        SourceError: no item could be scored.
    """

    def ask(style: str) -> dict[str, Choices]:
        label = f"Asking {name} ({style})"
        scores = score_choices(base, tuned, tokenizer, task.items, chat=style == "chat", label=label)
        if all(score is None for score in scores):
            raise SourceError(f"no item of {name} ({style}) can be scored", UNSCORED_FIX)
        return {way: _letters(task.items, scores, way) for way in SCORINGS}

    formats = {}
    steps = steps.of(items=[asdict(item) for item in task.items])
    for style in FORMATS if tokenizer.chat_template else ("plain",):
        formats[style] = once(steps, f"task {name} {style}", dict[str, Choices], partial(ask, style))
        if left_out := formats[style][HEADLINE].base.count(LEFT_OUT):
            logger.warning(f"{name} ({style}): {left_out} {ITEMS_LEFT_OUT}")
    right = "".join(ascii_uppercase[item.right] for item in task.items)
    return TaskAnswers(asked=[item.name for item in task.items], right=right, formats=formats)


def score_choices(
    base: PreTrainedModel,
    tuned: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: list[Item],
    *,
    chat: bool,
    label: str = "Asking",
) -> list[Array | None]:
    """The log-likelihood of every option under both models, in nats.

    Returns:
        For each item fp64 [2, C], the base's first; None where it is longer than the context or has a score that is
        not finite.

    Raises:
        ConfigError: the chat template cannot render a question.
    """
    context = declared_positions(base)
    rows: list[EncodedRow] = []
    for index, item in enumerate(items):
        of_item = _rows(item, index, tokenizer, chat=chat)
        if context is None or max(len(row["input_ids"]) for row in of_item) <= context:
            rows += of_item
    if not rows:
        return [None] * len(items)
    drift = measure(base, tuned, rows, label=label)
    score_D2 = -np.stack([drift.column("ce_base"), drift.column("ce")], axis=1)
    found, unscored_2 = dict(zip(drift.documents, score_D2, strict=True)), np.full(2, np.nan)
    scores_2C = [
        np.stack([found.get(f"{index} {choice}", unscored_2) for choice in range(len(item.choices))], axis=1)
        for index, item in enumerate(items)
    ]
    return [score_2C if np.isfinite(score_2C).all() else None for score_2C in scores_2C]


def _rows(item: Item, index: int, tokenizer: PreTrainedTokenizerBase, *, chat: bool) -> list[EncodedRow]:
    """A row for every option, the option alone to be predicted.

    Prompt and option are tokenised together, and a token that spans the boundary belongs to the option. A chat template
    writes the start of a document itself; a plain prompt starts as the tokenizer starts any input.
    """
    prompt = _PROMPT.format(question=item.question)
    glue = " "
    if chat:
        prompt, glue = rendered(tokenizer, prompt), ""
    texts = [prompt, *(prompt + glue + choice for choice in item.choices)]
    prompt_ids, *rows = tokenizer(texts, add_special_tokens=not chat, verbose=False)["input_ids"]
    labelled: list[EncodedRow] = []
    for choice, ids in enumerate(rows):
        same = shared_prefix(prompt_ids, ids)
        labels = [IGNORED_LABEL] * same + ids[same:]
        labelled.append({"input_ids": ids, "labels": labels, "document": f"{index} {choice}"})
    return labelled


def choose(item: Item, score_2C: Array, way: str = HEADLINE) -> list[int]:
    """The option that the base chooses by one of `SCORINGS`, and that which the tuned model chooses."""
    lengths_C = np.array([len(choice) if way == "per_character" else 1 for choice in item.choices])
    return (score_2C / lengths_C).argmax(axis=1).tolist()


def _letters(items: list[Item], scores: list[Array | None], way: str) -> Choices:
    chosen = [None if of is None else choose(item, of, way) for item, of in zip(items, scores, strict=True)]
    letters = ["".join(LEFT_OUT if of is None else ascii_uppercase[of[model]] for of in chosen) for model in (0, 1)]
    return Choices(base=letters[0], tuned=letters[1])
