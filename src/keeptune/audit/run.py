"""An audit from names to report.json: load two models, measure every text, say what was measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.floor import how, noise_floor
from keeptune.audit.gate import Bound, check, floor_of
from keeptune.audit.meter import DESCRIPTIONS, measure
from keeptune.audit.stats import LEVEL, RESAMPLES
from keeptune.audit.tasks import load_tasks, measure_tasks
from keeptune.audit.verdict import RULE, SHOWN, require_finite, verdicts
from keeptune.errors import ConfigError, SourceError
from keeptune.replay.view import fingerprint
from keeptune.replay.write import sample_pool
from keeptune.sources import document_start, encode, load_documents, load_model, load_tokenizer
from keeptune.storage import write_json
from keeptune.versions import provenance

REPORT = "report.json"
SELF = "self"
_NAME = re.compile(r"[\w.-]+")


def audit(
    base: str,
    tuned: str,
    texts: list[str],
    *,
    out: Path,
    tasks: Sequence[str] = (),
    items: int = 200,
    docs: int = 64,
    max_length: int = 256,
    windows: int = 4,
    seed: int = 1,
    bounds: Sequence[Bound] = (),
) -> dict[str, Any]:
    """Measure `tuned` against `base` on every text and task and write `<out>/report.json`; returns its content.

    Args:
        texts: each `NAME=SOURCE`, a source's alias, or `self`.
        tasks: each `NAME=FILE.jsonl`, see `keeptune.audit.items`; items: of each task at most, evenly spaced.
        docs: documents of each text at most, evenly spaced; windows: windows of each document at most.
        bounds: on these texts; the report says what became of them.

    Raises:
        ConfigError: models with other vocabularies, or texts or tasks named badly.
        SourceError: a model, text or task cannot be read.
        Diverged: the models' predictions are no numbers.
    """
    sources = named_sources(texts)
    questions = load_tasks(tasks, items)
    base_model, tuned_model = load_model(base), load_model(tuned)
    tokenizer = load_tokenizer(base)
    check_vocabularies(base_model, tuned_model, tokenizer, load_tokenizer(tuned))
    readings, floors = {}, {}
    for name, source in sources.items():
        rows = text_rows(
            source,
            base_model,
            tokenizer,
            out / "self-samples",
            docs=docs,
            length=max_length,
            windows=windows,
            seed=seed,
        )
        reading, floors[name] = read_text(base_model, tuned_model, rows, name)
        readings[name] = {"source": source, **reading}
    report: dict[str, Any] = {
        "base": {"source": base, "fingerprint": fingerprint(base_model)},
        "tuned": {"source": tuned, "fingerprint": fingerprint(tuned_model)},
        "texts": readings,
        "noise_floor": {"how": how(base_model), "texts": floors},
        "verdict_rule": RULE,
        "measures": DESCRIPTIONS,
        "intervals": f"{LEVEL:.0%} percentile bootstrap over documents, {RESAMPLES} resamples",
        **measure_tasks(base_model, tuned_model, tokenizer, questions),
        **provenance(seed),
    }
    report["gate"] = check(bounds, report)
    write_json(out / REPORT, report)
    return report


def read_text(
    base: PreTrainedModel, tuned: PreTrainedModel, rows: list[dict[str, Any]], name: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`Drift.summary()` with the verdicts on it, and the noise floor that they were held against.

    Raises:
        Diverged: the models' predictions are no numbers.
    """
    drift = measure(base, tuned, rows, label=f"Measuring on {name}")
    require_finite(drift, name)
    floors = noise_floor(base, rows, label=f"Measuring the noise floor on {name}")
    summary = drift.summary()
    return {**summary, "verdicts": verdicts(summary, floors)}, floors


def named_sources(texts: list[str]) -> dict[str, str]:
    """`["a=notes.txt", "pydoc"]` → `{"a": "notes.txt", "pydoc": "pydoc"}`."""
    sources: dict[str, str] = {}
    for text in texts:
        name, separator, source = text.partition("=")
        if not separator:
            source = name
        if not _NAME.fullmatch(name) or not source:
            raise ConfigError(f"--text {text} has no plain name", "write --text NAME=SOURCE, such as --text mine=a.txt")
        if name in sources:
            raise ConfigError(f"two texts are called {name}", "give each --text its own NAME")
        sources[name] = source
    return sources


def check_vocabularies(
    base: PreTrainedModel,
    tuned: PreTrainedModel,
    base_tokenizer: PreTrainedTokenizerBase,
    tuned_tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Refuse models whose predictions are not over the same tokens."""
    sizes = [model.get_output_embeddings().weight.shape[0] for model in (base, tuned)]
    left, right = base_tokenizer.get_vocab(), tuned_tokenizer.get_vocab()
    differing = sorted({token for token, _ in left.items() ^ right.items()})
    if sizes[0] != sizes[1] or differing:
        shown = f", tokens that differ: {', '.join(map(repr, differing[:5]))}" if differing else ""
        raise ConfigError(
            f"the models have different vocabularies ({sizes[0]} and {sizes[1]} outputs{shown})",
            "compare a tuned model with the base it was tuned from",
        )


def text_rows(
    source: str,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    samples: Path,
    *,
    docs: int,
    length: int,
    windows: int,
    seed: int,
) -> list[dict[str, Any]]:
    """The rows of one text, ready for `measure`; `self` makes fresh samples of the base in the folder `samples`."""
    if source == SELF:
        return self_rows(base, tokenizer, samples, docs=docs, length=length, seed=seed)
    documents = spaced(load_documents(source), docs)
    start, _ = document_start(tokenizer)
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in encode(documents, tokenizer, max_length=length, document_start=start):
        rows.setdefault(row["document"], []).append(row)
    kept = [row for of_document in rows.values() for row in of_document[:windows]]
    if not kept:
        raise SourceError(f"the text {source} is shorter than one window", "give a longer text")
    return kept


def self_rows(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, *, docs: int, length: int, seed: int
) -> list[dict[str, Any]]:
    """Fresh samples of the base, a document each."""
    pool = sample_pool(base, tokenizer, folder, tokens=docs * (length - 1), length=length - 1, seed=seed)
    rows = []
    for row in range(pool.rows):
        tokens = pool.tokens_of(row).tolist()
        rows.append({"input_ids": tokens, "labels": tokens, "document": f"sample {row}"})
    return rows


def spaced(documents: Dataset, limit: int) -> Dataset:
    """At most `limit` documents, spread over all of them."""
    if len(documents) <= limit:
        return documents
    return documents.select([index * len(documents) // limit for index in range(limit)])


def print_table(report: dict[str, Any]) -> None:
    """The report's numbers and verdicts as a table on standard output."""
    table = Table(title=f"Drift of {report['tuned']['source']} from {report['base']['source']}, nats per token")
    table.add_column("text")
    table.add_column("measure")
    table.add_column("value, 95 % interval", justify="right")
    table.add_column("noise floor", justify="right")
    table.add_column("verdict")
    for name, reading in report["texts"].items():
        about = [name, f"{reading['documents']} documents", f"{reading['tokens']} tokens", ""]
        for first, (key, label) in zip(about, SHOWN.items(), strict=True):
            value, floor = interval_text(reading["measures"][key]), floor_of(report, name, key)
            table.add_row(first, label, value, f"{floor:.2g}", reading["verdicts"][key])
        table.add_section()
    Console(highlight=False, markup=False, emoji=False).print(table)


def interval_text(interval: dict[str, Any]) -> str:
    """`0.031 [0.027, 0.036]`."""
    value = f"{interval['value']:.4f}"
    return value if interval["low"] is None else f"{value} [{interval['low']:.4f}, {interval['high']:.4f}]"
