"""`keeptune audit BASE CK1 CK2 … --stages`: a continual run from names to report.json.

The base stays loaded and one checkpoint at a time stands beside it: both read each text together, which gives the
drift of the checkpoint from the base as well. The base's forward pass is thus repeated for every checkpoint, and its
row is taken from the first one's reading.

Shapes: T stages, L = T + 1 rows, D documents, I items, C options of an item.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.items import Item
from keeptune.audit.meter import DESCRIPTIONS, Drift, measure
from keeptune.audit.page.stages import stages_page
from keeptune.audit.run import PAGE, REPORT, SAMPLES, STEPS
from keeptune.audit.settings import AuditSettings
from keeptune.audit.stages.matrix import DEFINITIONS, Column, cells, summary
from keeptune.audit.tasks import ITEMS_LEFT_OUT, UNSCORED_FIX, Task, choose, load_tasks, score_choices
from keeptune.audit.texts import FRESH, Row, longest, rows_of, text_sources
from keeptune.audit.verdict import how, noise_floor, require_finite, verdict
from keeptune.errors import ConfigError, SourceError
from keeptune.log import logger
from keeptune.models.limits import check_length, check_sizes, check_tokenizer
from keeptune.models.loading import load_model, load_tokenizer, resolve_model
from keeptune.models.modeling import fingerprint
from keeptune.models.vocabulary import check_vocabularies, vocabularies
from keeptune.stats import METHOD
from keeptune.storage import write_json, write_text
from keeptune.system import provenance, versions
from keeptune.workspace import Steps

KIND = "stages"
UNITS = {"texts": "−CE, nats per token", "tasks": "accuracy, the likeliest option per character, asked plainly"}


def audit_stages(settings: AuditSettings) -> dict[str, Any]:
    """Measure a base and the checkpoints after stages 1 … T on every column; write report.json and report.html.

    The first T texts that the user names, where there are as many, are those of the stages 1 … T, and so are the first
    T tasks; all others, and the base's own fresh text, are other knowledge, which no stage trained.

    Args:
        settings: its `tuned` are the checkpoints: the first was tuned from the base, each other from the one before.

    Raises:
        ConfigError: too few texts and tasks for the checkpoints, other vocabularies, or bad names.
        SourceError: a model, text or task cannot be read.
        Diverged: a model's predictions are no numbers.
    """
    checkpoints, out = settings.tuned, Path(settings.out)
    sources, questions = text_sources(settings.text, chat=False), load_tasks(settings.task, settings.items)
    named = {"texts": sources, "tasks": {name: task.source for name, task in questions.items()}}
    stages = _stages(named, settings)
    for name in checkpoints:
        resolve_model(name)
    base_model, tokenizer = load_model(settings.base), load_tokenizer(settings.base)
    check_tokenizer(base_model, tokenizer)
    mark = fingerprint(base_model)
    given = (base_model, tokenizer, out / SAMPLES)
    rows = rows_of(sources, *given, **settings.amount)
    check_length(base_model, longest(rows), "windows of text")
    steps = Steps(out / STEPS, base=mark, versions=versions())
    floors = floors_of(base_model, rows, steps)
    readings = [read_checkpoint(base_model, tokenizer, name, rows, questions, steps) for name in checkpoints]
    columns = _columns(stages, readings, floors)
    report = {
        "kind": KIND,
        "base": {"source": settings.base, "fingerprint": mark},
        "checkpoints": [
            {"stage": stage, "source": name, "fingerprint": reading.fingerprint}
            for stage, (name, reading) in enumerate(zip(checkpoints, readings, strict=True), start=1)
        ],
        **_numbers(columns, named),
        "drift": {"measure": DESCRIPTIONS["kl"], "texts": [_drifts(reading, floors) for reading in readings]},
        "noise_floor": {"how": how(base_model), "texts": floors},
        "settings": asdict(settings),
        **provenance(settings.seed),
    }
    write_json(out / REPORT, report)
    write_text(out / PAGE, stages_page(report))
    return report


def stages_of(sources: dict[str, str], checkpoints: int) -> dict[str, int | None]:
    """The first columns of a kind belong to stages 1 … T, the others to none; all to none where there are fewer.

    What the base writes itself belongs to none.
    """
    trained = [name for name, source in sources.items() if source not in FRESH]
    stages = range(1, checkpoints + 1) if len(trained) >= checkpoints else range(0)
    return {**dict.fromkeys(sources), **dict(zip(trained, stages, strict=False))}


def _stages(named: dict[str, dict[str, str]], settings: AuditSettings) -> dict[str, dict[str, int | None]]:
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


def _columns(
    stages: dict[str, dict[str, int | None]], readings: list[Readings], floors: dict[str, dict[str, Any]]
) -> dict[str, list[Column]]:
    texts, tasks = stages["texts"].items(), stages["tasks"].items()
    columns = {
        "texts": [text_column(name, stage, [of.texts[name] for of in readings], floors[name]) for name, stage in texts],
        "tasks": [task_column(name, stage, [of.tasks[name] for of in readings]) for name, stage in tasks],
    }
    return {kind: of_kind for kind, of_kind in columns.items() if of_kind}


def _numbers(columns: dict[str, list[Column]], named: dict[str, dict[str, str]]) -> dict[str, Any]:
    """The part of a report that the columns give."""
    return {
        "columns": [
            {
                "name": column.name,
                "kind": kind,
                "stage": column.stage,
                "source": named[kind][column.name],
                "units": UNITS[kind],
                "documents": len(column.weights_D),
                "targets": int(column.weights_D.sum()),
            }
            for kind in columns
            for column in columns[kind]
        ],
        "R": {kind: cells(columns[kind]) for kind in columns},
        "summary": {kind: summary(columns[kind]) for kind in columns},
        "definitions": DEFINITIONS,
        "intervals": f"{METHOD} of a column's documents or items, the same for all checkpoints",
    }


def _drifts(reading: Readings, floors: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """KL(base‖checkpoint) on every text, with its verdict."""
    drifts = []
    for name, drift in reading.texts.items():
        interval = drift.interval("kl").as_dict()
        drifts.append({**interval, "verdict": verdict("kl", interval, floors[name]["measures"]["kl"]["floor"])})
    return drifts


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
    texts: dict[str, list[Row]],
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
    model = load_model(checkpoint)
    own_tokenizer = load_tokenizer(checkpoint)
    check_sizes(model, own_tokenizer, longest(texts), "windows of text")
    check_vocabularies(vocabularies(base, model, tokenizer, own_tokenizer))
    mark = fingerprint(model)
    of_checkpoint = steps.of(checkpoint=mark)

    def read(name: str) -> dict[str, Any]:
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


def text_column(name: str, stage: int | None, drifts: Sequence[Drift], floor: dict[str, Any]) -> Column:
    """A text's score is −CE, nats per token.

    Args:
        drifts: one a checkpoint, over the same documents; floor: of the base on this text, as `noise_floor` gives it.
    """
    rows = [drifts[0].column("ce_base"), *(drift.column("ce") for drift in drifts)]
    ce_floor = floor["measures"]["ce_change"]["floor"]
    return Column(name=name, stage=stage, sums_LD=-np.stack(rows), weights_D=drifts[0].tokens_D, floor=ce_floor)


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


def floors_of(base: PreTrainedModel, texts: dict[str, list[Row]], steps: Steps) -> dict[str, dict[str, Any]]:
    """The noise floor of every text."""
    floors = {}
    for name, rows in texts.items():
        read = partial(noise_floor, base, rows, label=f"Measuring the noise floor on {name}")
        floors[name] = steps.of(rows=rows).once(f"stages noise floor {name}", read)
    return floors
