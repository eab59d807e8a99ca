"""An audit from names to report.json: the texts, the two models, and every section of what is measured on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.gate import Bound, check
from keeptune.audit.harness import check_harness, measure_harness
from keeptune.audit.meter import DESCRIPTIONS, measure
from keeptune.audit.page.audit import audit_page
from keeptune.audit.safety import load_prompts, measure_safety
from keeptune.audit.settings import AuditSettings
from keeptune.audit.tasks import DESCRIPTION, load_tasks, measure_task
from keeptune.audit.texts import SELF, Row, longest, rows_of, text_sources, without_tokens
from keeptune.audit.verdict import RULE, how, noise_floor, require_finite, verdicts
from keeptune.audit.where.collector import Where, where_section
from keeptune.audit.where.layers import layer_profile
from keeptune.audit.where.passages import continuations
from keeptune.errors import ConfigError, SourceError
from keeptune.log import logger
from keeptune.models.limits import check_length, check_sizes, check_tokenizer
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.models.modeling import fingerprint
from keeptune.models.vocabulary import Vocabularies, check_vocabularies, share_vocabulary, vocabularies
from keeptune.replay.openings import chat_opening
from keeptune.stats import METHOD
from keeptune.storage import write_json, write_text
from keeptune.system import commit, provenance, release, versions
from keeptune.workspace import Steps

REPORT, PAGE = "report.json", "report.html"
STEPS, SAMPLES = "steps", "samples"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What every section of an audit is measured with."""

    base: PreTrainedModel
    tuned: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    """The base's."""
    rows: dict[str, list[Row]]
    """The rows of each text."""
    sources: dict[str, str]
    """Where each text comes from."""
    vocabulary: str | None
    """In words how the vocabularies differ, where they do."""
    steps: Steps


def audit(
    settings: AuditSettings, bounds: Sequence[Bound] = (), probe: Callable[[Loaded, str, int], Any] | None = None
) -> dict[str, Any]:
    """Measure a tuned model against its base; writes `<out>/report.json`, and from it `report.html`, and returns it.

    Args:
        bounds: on what is measured; the report says what became of them.
        probe: `keeptune.probes.recovery.recovery_probe`, for settings that ask for it: it trains, and so stands above.

    Raises:
        ConfigError: models with other vocabularies, or texts or tasks named badly.
        SourceError: a model, text or task cannot be read.
        Diverged: the models' predictions are no numbers.
    """
    questions = load_tasks(settings.task, settings.items)
    check_harness(settings.lm_eval)
    prompts = load_prompts(settings.harmful, settings.harmless_lists, settings.prompts)
    loaded = load(settings)
    base, tuned, steps = loaded.base, loaded.tuned, loaded.steps
    models = base, tuned, loaded.tokenizer
    asked: dict[str, Any] = {"new_tokens": settings.new_tokens, "judge": settings.judge}
    texts = {name: read_text(loaded, name) for name in loaded.rows}
    tasks = {name: measure_task(*models, task, name, steps) for name, task in questions.items()}
    report: dict[str, Any] = {
        "kind": "audit",
        "base": {"source": settings.base, "fingerprint": steps.inputs["base"]},
        "tuned": {"source": settings.tuned[0], "fingerprint": steps.inputs["tuned"]},
        "vocabulary": loaded.vocabulary,
        "settings": asdict(settings),
        "texts": {name: step["reading"] for name, step in texts.items()},
        "noise_floor": {"how": how(base), "texts": {name: step["floor"] for name, step in texts.items()}},
        "verdict_rule": RULE,
        "measures": DESCRIPTIONS,
        "intervals": f"{METHOD} of documents",
        **({"tasks": tasks, "task_measures": DESCRIPTION} if tasks else {}),
        **measure_harness(*models, settings.lm_eval, settings.items, steps),
        **({"safety": safety} if (safety := measure_safety(*models, prompts, steps, **asked)) else {}),
        "where": _where(loaded, texts),
        **provenance(settings.seed),
    }
    if probe and settings.recovery:
        report["recovery"] = probe(loaded, settings.recovery, settings.seed)
    report["gate"] = check(bounds, report)
    write_json(Path(settings.out) / REPORT, report)
    write_text(Path(settings.out) / PAGE, audit_page(report))
    return report


def load(settings: AuditSettings) -> Loaded:
    """Load what is measured and what it is measured on.

    The base writes its fresh text before the tuned model is loaded: while it writes there is a copy of it.
    """
    tokenizer, tuned_tokenizer = load_tokenizer(settings.base), load_tokenizer(settings.tuned[0])
    base = load_model(settings.base)
    check_tokenizer(base, tokenizer)
    sources = text_sources(settings.text, chat=_opens_chats(tokenizer))
    given = (base, tokenizer, Path(settings.out) / SAMPLES)
    rows = rows_of(sources, *given, **settings.amount)
    check_length(base, longest(rows), "windows of text")
    release()
    marks = {"base": fingerprint(base)}
    tuned = load_model(settings.tuned[0])
    check_sizes(tuned, tuned_tokenizer, longest(rows), "windows of text")
    marks["tuned"] = fingerprint(tuned)
    found = vocabularies(base, tuned, tokenizer, tuned_tokenizer)
    if settings.shared_vocabulary and not found.same:
        share_vocabulary(base, tuned, found)
        rows = {name: _shared_rows(name, of_text, found) for name, of_text in rows.items()}
    else:
        check_vocabularies(found)
    steps = Steps(Path(settings.out) / STEPS, **marks, vocabulary=str(found), versions=versions(), commit=commit())
    difference, models = None if found.same else str(found), {"base": base, "tuned": tuned, "tokenizer": tokenizer}
    return Loaded(**models, rows=rows, sources=sources, vocabulary=difference, steps=steps)


def read_text(loaded: Loaded, name: str) -> dict[str, Any]:
    """One text, read once: `reading`, its `Drift.summary()` with the verdicts on it; `floor`, its noise floor; and
    `where`, the `Where.summary()` of the same pass.

    Raises:
        Diverged: the models' predictions are no numbers.
    """
    rows = loaded.rows[name]

    def read() -> dict[str, Any]:
        where = Where(loaded.tokenizer)
        drift = measure(loaded.base, loaded.tuned, rows, label=f"Measuring on {name}", on_tokens=where.add)
        require_finite(drift, name)
        floor = noise_floor(loaded.base, rows, label=f"Measuring the noise floor on {name}")
        summary = drift.summary()
        reading = {"source": loaded.sources[name], **summary, "verdicts": verdicts(summary, floor)}
        return {"reading": reading, "floor": floor, "where": where.summary()}

    return loaded.steps.of(rows=rows).once(f"text {name}", read)


def _where(loaded: Loaded, texts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    base, tuned, rows, steps = loaded.base, loaded.tuned, loaded.rows, loaded.steps
    layers = steps.of(rows=rows[SELF]).once("layers", lambda: layer_profile(base, tuned, rows[SELF], SELF))
    written = continuations(base, tuned, loaded.tokenizer, rows, steps)
    return where_section({name: step["where"] for name, step in texts.items()}, layers, written)


def _opens_chats(tokenizer: PreTrainedTokenizerBase) -> bool:
    if not tokenizer.chat_template:
        return False
    try:
        chat_opening(tokenizer)
    except ConfigError as error:
        logger.info(f"no fresh chats (self-chat): {error.what}")
        return False
    return True


def _shared_rows(name: str, rows: list[Row], found: Vocabularies) -> list[Row]:
    """The rows made of tokens that both models have."""
    kept = without_tokens(rows, set(found.differing), found.words)
    if left_out := len(rows) - len(kept):
        logger.warning(f"{name}: {left_out} of {len(rows)} windows hold tokens that differ, and are left out")
    if not kept:
        raise SourceError(f"every window of {name} holds a token that differs", "leave it out, or give another text")
    return kept
