"""What a tuned model still answers right: multiple choice, scored by the log-likelihood of every option.

The question is `Question: …\\nAnswer:` and what is scored are the options' texts, for all data sets, as lm-eval has it
for ARC and, under `mmlu_continuation`, for MMLU. It is asked twice: plainly, an option following after a space; and as
a user's turn in the base's chat template, where an option is the whole of the assistant's answer, as lm-eval does
with `--apply_chat_template`. Of the rendered text only an option's own tokens are scored.

Shapes: C options of an item.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from string import ascii_uppercase

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.answers import rendered, shared_prefix
from keeptune.audit.items import Item, read_items
from keeptune.audit.meter import measure
from keeptune.audit.paired import ASSUMPTION, lost_beyond_chance
from keeptune.audit.section import Cost, Loaded, Measured, Section, digest_of, paired
from keeptune.audit.texts import named_sources
from keeptune.data.rows import IGNORED_LABEL
from keeptune.data.tokens import EncodedRow
from keeptune.errors import SourceError
from keeptune.log import logger
from keeptune.models.limits import declared_positions
from keeptune.report.codec import once
from keeptune.report.document import SectionRecord, Subject
from keeptune.report.finding import Finding, found
from keeptune.report.view import View, default_view, findings_table
from keeptune.report.words import counted, flaws_in_words, listed
from keeptune.stats import Array, Interval, evenly_spaced, wilson
from keeptune.workspace import Steps

HEADLINE = "per_character"
SCORINGS = {
    "per_character": "the option with the highest log-likelihood per character (lm-eval's acc_norm)",
    "raw_sum": "the option with the highest log-likelihood (lm-eval's acc)",
}
FORMATS = {"plain": "plainly", "chat": "in the chat template"}
_PROMPT = "Question: {question}\nAnswer:"
_LEFT_OUT = "-"
ITEMS_LEFT_OUT = "items left out, longer than the context or without a finite score"
UNSCORED_FIX = "check the models, and that questions fit their context"


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """The questions that both models answer."""

    task: list[str] = field(default_factory=list)
    """Questions to answer: arc, mmlu or commonsenseqa from the hub, or NAME=FILE (jsonl or parquet) in one of their
    layouts. Repeat it for more."""
    items: int = 200
    """At most so many questions of each task, evenly spaced."""


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
        if left_out := formats[style][HEADLINE].base.count(_LEFT_OUT):
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
    letters = ["".join(_LEFT_OUT if of is None else ascii_uppercase[of[model]] for of in chosen) for model in (0, 1)]
    return Choices(base=letters[0], tuned=letters[1])


class Tasks(Section[TaskSettings]):
    """Change of accuracy, agreement, and what was lost beyond chance, of every task, format and scoring."""

    name, title, bounds = "tasks", "What it still answers right", ("accuracy", "agreement")
    noun = "task"

    def __init__(self, settings: TaskSettings) -> None:
        super().__init__(settings)
        self.tasks = load_tasks(settings.task, settings.items)

    @classmethod
    def names(cls, settings: TaskSettings) -> Sequence[str]:
        """The tasks."""
        return list(named_sources(settings.task, "--task"))

    def not_asked(self) -> str:
        """Why there is nothing to measure."""
        return "" if self.tasks else "no --task is given"

    def cost(self) -> Cost:
        """Every option of every question is read, plainly and as a chat turn; a token is taken for four characters."""
        items = [item for task in self.tasks.values() for item in task.items]
        letters = sum(len(item.question) * len(item.choices) + sum(map(len, item.choices)) for item in items)
        return Cost(items=len(items), read=2 * letters // 4)

    def measure(self, loaded: Loaded) -> Measured:
        """Every task in each format, each in a step of its own."""
        findings, subjects, methods, details = list[Finding](), [], [], {}
        for name, task in self.tasks.items():
            asked = measure_task(loaded.base, loaded.tuned, loaded.tokenizer, task, name, loaded.steps)
            findings += task_findings(self.name, name, task.items, asked)
            subjects.append(task_subject(name, task))
            styles = listed([FORMATS[style] for style in asked.formats])
            left_out = sum(ways[HEADLINE].base.count(_LEFT_OUT) for ways in asked.formats.values())
            short = f" {counted(left_out, 'answer')} could not be scored and are left out." if left_out else ""
            bad = flaws_in_words(task.flaws, "question")
            methods.append(
                f"{name}: {len(task.items):,} of {task.readable:,} questions from {task.source}, evenly spaced, asked "
                f"{styles}.{short}{bad}"
            )
            details[name] = asked
        methods.append(f"What was lost beyond chance (arXiv 2510.17776). {ASSUMPTION}")
        methods += [f"Scored {way.replace('_', ' ')}: {words}." for way, words in SCORINGS.items()]
        return Measured(findings=findings, subjects=subjects, methods=methods, details=details)

    @classmethod
    def view(cls, record: SectionRecord, findings: Sequence[Finding]) -> View:
        """The headline scoring with what is lost beyond chance; the other scoring folded."""
        first = [one for one in findings if one.part in FORMATS]
        others = [one for one in findings if one.part not in FORMATS and one.measure == "accuracy"]
        prose = (
            "The same questions put to both models. What only one of them has right tells them apart: lost is what "
            "only the base has right, gained what only the tuned model has."
        )
        table = findings_table("tasks", "Answers by task", first)
        folded = [("Answers scored otherwise", findings_table("tasks-others", "Answers scored otherwise", others))]
        return default_view(record, findings, prose, tables=[table], folded=folded)


def task_subject(name: str, task: Task) -> Subject:
    """What a task was, for a report."""
    digest, size = digest_of([asdict(item) for item in task.items]), len(task.items)
    return Subject(name=name, kind="task", source=task.source, n=size, unit_of_n="item", digest=digest)


def task_findings(section: str, name: str, items: list[Item], asked: TaskAnswers) -> Iterator[Finding]:
    """What both models' answers say, for each format and scoring; the headline scoring's change is judged."""
    for style, ways in asked.formats.items():
        for way, chosen in ways.items():
            rows = zip(items, asked.right, chosen.base, chosen.tuned, strict=True)
            kept = [(item, right, base, tuned) for item, right, base, tuned in rows if base != _LEFT_OUT]
            base, tuned = ([row[1] == row[place] for row in kept] for place in (2, 3))
            first, part = way == HEADLINE, style if way == HEADLINE else f"{style}, {way.replace('_', ' ')}"
            yield paired(section, name, "accuracy", base, tuned, "item", judged=first, part=part, headline=first)
            if not first:
                continue
            same = wilson(sum(row[2] == row[3] for row in kept), len(kept))
            yield found(section, name, "agreement", same, "item", judged=False, part=part)
            beyond = lost_beyond_chance(*_numbers(kept))
            if beyond is not None:
                bare = Interval(value=beyond, low=None, high=None, documents=len(kept))
                yield found(section, name, "lost_beyond_chance", bare, "item", part=part)


def _numbers(kept: Sequence[tuple[Item, str, str, str]]) -> list[npt.NDArray[np.int64]]:
    """The right option, each model's, and how many there are, of every item: int64 [I] each."""
    letters = ("".join(of) for of in zip(*(row[1:] for row in kept), strict=True))
    chosen = [[ascii_uppercase.index(letter) for letter in of] for of in letters]
    return [np.array(of, dtype=np.int64) for of in (*chosen, [len(row[0].choices) for row in kept])]
