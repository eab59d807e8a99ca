"""`keeptune audit BASE CK1 CK2 … --stages`: a continual run, measured column by column after every stage.

The base stays loaded and one checkpoint at a time stands beside it: both read each text together, which gives the
drift of the checkpoint from the base as well. The base's forward pass is thus repeated for every checkpoint, and its
row is taken from the first one's reading.

Shapes: T stages, L = T + 1 rows, D documents, I items, C options of an item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.continual.matrix import SECTION, Column, score_findings, summary_findings
from keeptune.audit.continual.view import ColumnAbout, ContinualDetails, Kind, continual_view
from keeptune.audit.drift import text_subject
from keeptune.audit.meter import Drift, measure
from keeptune.audit.section import Cost, Loaded, Measured, ModelSettings, Section
from keeptune.audit.tasks.items import Item
from keeptune.audit.tasks.scoring import ITEMS_LEFT_OUT, UNSCORED_FIX, Task, choose, load_tasks, score_choices
from keeptune.audit.tasks.section import TaskSettings, task_subject
from keeptune.audit.texts import FRESH, TextSettings, longest, text_sources
from keeptune.audit.verdict import floors_of, how, require_finite
from keeptune.data.tokens import EncodedRow
from keeptune.errors import ConfigError, SourceError
from keeptune.log import logger
from keeptune.models.limits import check_sizes
from keeptune.models.loading import load_tokenizer, load_tuned, resolve_model
from keeptune.models.modeling import whole_fingerprint
from keeptune.models.vocabulary import check_vocabularies, vocabularies
from keeptune.report.codec import JsonValue
from keeptune.report.document import Model, SectionRecord, Subject
from keeptune.report.finding import Finding, UnitOfN, found
from keeptune.report.view import View
from keeptune.report.words import counted
from keeptune.stats import METHOD
from keeptune.workspace import Steps

UNITS: dict[Kind, UnitOfN] = {"texts": "document", "tasks": "item"}


@dataclass(frozen=True, kw_only=True)
class ContinualSettings(ModelSettings, TextSettings, TaskSettings):
    """What a continual run is measured on."""


class Continual(Section[ContinualSettings]):
    """The score matrix of a base and its checkpoints, ACC, BWT, FWT, forgetting, and the drift of each checkpoint.

    The first T texts that the user names, where there are as many, are those of the stages 1 … T, and so are the first
    T tasks; all others, and the base's own fresh text, are other knowledge, which no stage trained.
    """

    name, title, reads_texts, compares = SECTION, "What each stage taught, and what was forgotten", True, False

    def __init__(self, settings: ContinualSettings) -> None:
        """Check that each stage has a column.

        Raises:
            ConfigError: too few texts and tasks for the checkpoints.
            SourceError: a checkpoint or a task cannot be read.
        """
        super().__init__(settings)
        self.tasks = load_tasks(settings.task, settings.items)
        texts = text_sources(settings.text, chat=False)
        named: dict[Kind, dict[str, str]] = {
            "texts": texts, "tasks": {name: task.source for name, task in self.tasks.items()}
        }  # fmt: skip
        self.stages = _stages(named, settings)
        self.sources = named
        for name in settings.tuned:
            resolve_model(name)

    def cost(self) -> Cost:
        """Every checkpoint reads every text and answers every task, with the base beside it."""
        stages, texts = len(self.settings.tuned), len(self.sources["texts"])
        items = texts * self.settings.docs + sum(len(task.items) for task in self.tasks.values())
        read = texts * self.settings.docs * self.settings.windows * self.settings.max_length
        sampled = self.settings.docs * (self.settings.max_length - 1)
        return Cost(items=stages * items, read=stages * read, sampled=sampled)

    def measure(self, loaded: Loaded) -> Measured:
        """Every checkpoint on every column; what an earlier run finished is not done again."""
        base, tokenizer, rows, steps = loaded.base, loaded.tokenizer, loaded.rows, loaded.steps
        floors = {}
        for name, of_text in rows.items():
            read = partial(floors_of, base, of_text, f"Measuring the noise floor on {name}")
            floors[name] = steps.of(rows=of_text).once(f"stages noise floor {name}", read)
        readings = [read_checkpoint(base, tokenizer, name, rows, self.tasks, steps) for name in self.settings.tuned]
        columns = self._columns(readings, floors)
        findings: list[Finding] = []
        for kind, of_kind in columns.items():
            findings += [*score_findings(of_kind, UNITS[kind]), *summary_findings(of_kind, kind, UNITS[kind])]
        for stage, reading in enumerate(readings, start=1):
            for name, drift in reading.texts.items():
                floor = floors[name]["kl"]
                kl, part = drift.interval("kl"), f"stage {stage}"
                findings.append(found(SECTION, name, "kl", kl, "document", part=part, noise_floor=floor))
        models = [
            Model(source=name, fingerprint=of.fingerprint)
            for name, of in zip(self.settings.tuned, readings, strict=True)
        ]
        return Measured(
            findings=findings,
            subjects=self._subjects(rows, readings[0]),
            methods=self._methods(columns, base),
            details=ContinualDetails(checkpoints=models, columns=self._about(columns)),
            tuned=models,
        )

    @classmethod
    def view(cls, record: SectionRecord, findings: Sequence[Finding]) -> View:
        """The matrix as a heat map, lines by stage, and every number in a table."""
        return continual_view(record, findings)

    def _columns(self, readings: list[Readings], floors: dict[str, dict[str, float]]) -> dict[Kind, list[Column]]:
        texts, tasks = self.stages["texts"].items(), self.stages["tasks"].items()
        columns: dict[Kind, list[Column]] = {
            "texts": [
                text_column(name, stage, [of.texts[name] for of in readings], floors[name]["ce_change"])
                for name, stage in texts
            ],
            "tasks": [task_column(name, stage, [of.tasks[name] for of in readings]) for name, stage in tasks],
        }
        return {kind: of_kind for kind, of_kind in columns.items() if of_kind}

    def _about(self, columns: dict[Kind, list[Column]]) -> list[ColumnAbout]:
        return [
            ColumnAbout(
                name=column.name,
                kind=kind,
                stage=column.stage,
                source=self.sources[kind][column.name],
                documents=len(column.weights_D),
            )
            for kind in columns
            for column in columns[kind]
        ]

    def _subjects(self, rows: dict[str, list[EncodedRow]], reading: Readings) -> list[Subject]:
        texts = [
            text_subject(name, self.sources["texts"][name], of_text, reading.texts[name])
            for name, of_text in rows.items()
        ]
        return texts + [task_subject(name, task) for name, task in self.tasks.items()]

    def _methods(self, columns: dict[Kind, list[Column]], base: PreTrainedModel) -> list[str]:
        return [
            "The score of a text is −CE in nats per token, the loss with its sign turned; that of a task is accuracy, "
            "the likeliest option per character, asked plainly. Higher is better.",
            *(
                f"{column.name}: {counted(len(column.weights_D), UNITS[kind])} of {self.sources[kind][column.name]}."
                for kind, of_kind in columns.items()
                for column in of_kind
            ),
            f"Noise floor: {how(base)}.",
            f"Intervals: {METHOD} of a column's documents or items, the same for all checkpoints.",
        ]


def stages_of(sources: dict[str, str], checkpoints: int) -> dict[str, int | None]:
    """The first columns of a kind belong to stages 1 … T, the others to none; all to none where there are fewer.

    What the base writes itself belongs to none.
    """
    trained = [name for name, source in sources.items() if source not in FRESH]
    stages = range(1, checkpoints + 1) if len(trained) >= checkpoints else range(0)
    return {**dict.fromkeys(sources), **dict(zip(trained, stages, strict=False))}


def _stages(named: dict[Kind, dict[str, str]], settings: ContinualSettings) -> dict[Kind, dict[str, int | None]]:
    if settings.shared_vocabulary:
        raise ConfigError("--shared-vocabulary compares two models, not stages", "leave it out, or audit in pairs")
    checkpoints = len(settings.tuned)
    given = {kind: sum(source not in FRESH for source in of.values()) for kind, of in named.items()}
    if max(given.values()) < checkpoints:
        raise ConfigError(
            f"{checkpoints} stages need a column each; texts given: {given['texts']}, tasks: {given['tasks']}",
            "give a --text or a --task of what each stage trained, in the order of the stages; others go behind them",
        )
    return {kind: stages_of(sources, checkpoints) for kind, sources in named.items()}


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What one checkpoint and the base beside it said, column by column."""

    fingerprint: str
    """Of the checkpoint's weights."""
    texts: dict[str, Drift]
    tasks: dict[str, list[list[int] | None]]
    """For every item whether the base and whether the checkpoint chose the right option; None: it was left out."""


def read_checkpoint(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    checkpoint: str,
    texts: dict[str, list[EncodedRow]],
    tasks: dict[str, Task],
    steps: Steps,
) -> Readings:
    """Load one checkpoint and measure it on every text and task; what an earlier run finished is not done again.

    Args:
        tokenizer: the base's.
        steps: bound to the base and to all settings that the rows and items do not show.

    Raises:
        ConfigError: it predicts over other tokens than the base.
        SourceError: it cannot be read.
        Diverged: its predictions are no numbers.
    """
    model = load_tuned(checkpoint, base)
    own_tokenizer = load_tokenizer(checkpoint)
    check_sizes(model, own_tokenizer, longest(texts), "windows of text")
    check_vocabularies(vocabularies(base, model, tokenizer, own_tokenizer))
    mark = whole_fingerprint(model)
    of_checkpoint = steps.of(checkpoint=mark)

    def read(name: str) -> dict[str, JsonValue]:
        drift = measure(base, model, texts[name], label=f"Measuring {checkpoint} on {name}")
        require_finite(drift, name)
        return drift.as_dict()

    drifts = {}
    for name, rows in texts.items():
        of_text = of_checkpoint.of(rows=rows)
        drifts[name] = Drift.from_dict(of_text.once(f"stages {mark[:12]} text {name}", partial(read, name)))
    answers = {}
    for name, task in tasks.items():
        ask = partial(right_answers, base, model, tokenizer, task.items, label=f"Asking {checkpoint} {name}")
        bound = of_checkpoint.of(items=[asdict(item) for item in task.items])
        answers[name] = bound.once(f"stages {mark[:12]} task {name}", ask)
    return Readings(fingerprint=mark, texts=drifts, tasks=answers)


def right_answers(
    base: PreTrainedModel, tuned: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: list[Item], label: str
) -> list[list[int] | None]:
    """For every item 1 or 0, the base's first: whether the likeliest option per character is the right one.

    They are asked plainly, not as a chat turn: base models and instruct models then share one scale. None stands for
    an item that is longer than the context or has no finite score.
    """
    scores = score_choices(base, tuned, tokenizer, items, chat=False, label=label)
    return [
        None if score_2C is None else [int(choice == item.right) for choice in choose(item, score_2C)]
        for item, score_2C in zip(items, scores, strict=True)
    ]


def text_column(name: str, stage: int | None, drifts: Sequence[Drift], floor: float) -> Column:
    """A text's score is −CE, nats per token.

    Args:
        drifts: one a checkpoint, over the same documents.
        floor: the noise floor of the change of loss on this text.
    """
    rows = [drifts[0].column("ce_base"), *(drift.column("ce") for drift in drifts)]
    return Column(name=name, stage=stage, sums_LD=-np.stack(rows), weights_D=drifts[0].tokens_D, floor=floor)


def task_column(name: str, stage: int | None, answers: Sequence[list[list[int] | None]]) -> Column:
    """A task's score is accuracy, over the items that every checkpoint could be asked.

    Raises:
        SourceError: there is no such item.
    """
    asked = [place for place, of_item in enumerate(zip(*answers, strict=True)) if None not in of_item]
    if not asked:
        raise SourceError(f"no item of {name} can be scored", UNSCORED_FIX)
    if left_out := len(answers[0]) - len(asked):
        logger.warning(f"{name}: {left_out} {ITEMS_LEFT_OUT}")
    right_TI2 = np.array([[of_checkpoint[place] for place in asked] for of_checkpoint in answers], dtype=np.float64)
    sums_LI = np.concatenate([right_TI2[:1, :, 0], right_TI2[:, :, 1]])
    return Column(name=name, stage=stage, sums_LD=sums_LI, weights_D=np.ones(len(asked)), floor=0.0)
