"""The section of tasks: the change of accuracy of multiple choice, and what was lost beyond chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from string import ascii_uppercase

import numpy as np
import numpy.typing as npt

from keeptune.audit.paired import ASSUMPTION, lost_beyond_chance
from keeptune.audit.section import Cost, Loaded, Measured, Section, digest_of, paired
from keeptune.audit.tasks.items import Item
from keeptune.audit.tasks.scoring import (
    FORMATS,
    HEADLINE,
    LEFT_OUT,
    SCORINGS,
    Task,
    TaskAnswers,
    load_tasks,
    measure_task,
)
from keeptune.audit.texts import named_sources
from keeptune.report.document import SectionRecord, Subject
from keeptune.report.finding import Finding, found
from keeptune.report.view import View, default_view, findings_table
from keeptune.report.words import counted, flaws_in_words, listed
from keeptune.stats import Interval, wilson


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """The questions that both models answer."""

    task: list[str] = field(default_factory=list)
    """Questions to answer: arc, mmlu or commonsenseqa from the hub, or NAME=FILE (jsonl or parquet) in one of their
    layouts. Repeat it for more."""
    items: int = 200
    """At most so many questions of each task, evenly spaced."""


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
            left_out = sum(ways[HEADLINE].base.count(LEFT_OUT) for ways in asked.formats.values())
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
            kept = [(item, right, base, tuned) for item, right, base, tuned in rows if base != LEFT_OUT]
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
