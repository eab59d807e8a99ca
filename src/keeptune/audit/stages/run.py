"""`keeptune audit BASE CK1 CK2 … --stages`: a continual run from names to report.json."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from keeptune.audit.meter import DESCRIPTIONS
from keeptune.audit.page.stages import stages_page
from keeptune.audit.run import PAGE, REPORT, SAMPLES, STEPS
from keeptune.audit.settings import AuditSettings
from keeptune.audit.stages.matrix import DEFINITIONS, Column, cells, summary
from keeptune.audit.stages.measure import Readings, floors_of, read_checkpoint, task_column, text_column
from keeptune.audit.tasks import load_tasks
from keeptune.audit.texts import FRESH, text_rows, text_sources
from keeptune.audit.verdict import how, verdict
from keeptune.errors import ConfigError
from keeptune.models.loading import load_model, load_tokenizer, resolve_model
from keeptune.models.modeling import fingerprint
from keeptune.stats import LEVEL, RESAMPLES
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
    mark = fingerprint(base_model)
    given = (base_model, tokenizer, out / SAMPLES)
    rows = {name: text_rows(source, *given, **settings.amount) for name, source in sources.items()}
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
        "intervals": f"{LEVEL:.0%} percentile bootstrap over a column's documents or items, {RESAMPLES} resamples, "
        "the same for all checkpoints",
    }


def _drifts(reading: Readings, floors: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """KL(base‖checkpoint) on every text, with its verdict."""
    drifts = []
    for name, drift in reading.texts.items():
        interval = drift.interval("kl").as_dict()
        drifts.append({**interval, "verdict": verdict("kl", interval, floors[name]["measures"]["kl"]["floor"])})
    return drifts
