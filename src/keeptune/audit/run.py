"""An audit from names to report.json: the models and texts are loaded once, and every section is measured on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.gate import Bound, check
from keeptune.audit.page import audit_page
from keeptune.audit.section import AnySection, Loaded, Measured, Section, digest_of
from keeptune.audit.settings import LONG, SECTIONS, AuditSettings
from keeptune.audit.texts import FRESH, longest, rows_of, text_sources, without_tokens
from keeptune.data.templates import current_day, on_day
from keeptune.data.tokens import EncodedRow
from keeptune.errors import ConfigError, Diverged, Interrupted, KeeptuneError, SourceError, StorageError
from keeptune.log import logger
from keeptune.models.disk.wheels import build_once, cache_folder
from keeptune.models.limits import check_length, check_sizes, check_tokenizer
from keeptune.models.loading import load_model, load_tokenizer, load_tuned, resolve_model
from keeptune.models.modeling import fingerprint, whole_fingerprint
from keeptune.models.vocabulary import Vocabularies, check_vocabularies, share_vocabulary, vocabularies
from keeptune.replay.openings import chat_opening
from keeptune.report.codec import to_json
from keeptune.report.document import Model, Report, SectionRecord, Status
from keeptune.report.finding import together
from keeptune.report.measures import Verdict
from keeptune.report.trackers import track_report
from keeptune.storage import write_text
from keeptune.system import commit, provenance, release, versions
from keeptune.workspace import Steps

REPORT, PAGE = "report.json", "report.html"
STEPS, SAMPLES = "steps", "samples"
_FLAGS = "--only or --skip"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A section that is measured, or why it is not."""

    section: AnySection
    asked: Section[Any] | None
    reason: str


def audit(settings: AuditSettings, bounds: Sequence[Bound] = (), sections: Sequence[AnySection] = SECTIONS) -> Report:
    """Measure a tuned model against its base; writes `<out>/report.json`, findings.csv and report.html.

    Args:
        bounds: on what is measured; the report says what became of them.
        sections: those that there are, in the order of the page; one that trains the models comes last.

    Raises:
        ConfigError: models with other vocabularies, or texts, tasks or sections named badly.
        SourceError: a model, text or task cannot be read.
        Diverged: the models' predictions are no numbers.
    """
    chosen = choose(settings, sections)
    loaded = load(settings, [one.section for one in chosen if one.asked])
    with on_day(current_day()):  # an audit that crosses midnight asks both models the same
        records, results = measure_sections(chosen, loaded)
    tuned = [Model(source=settings.tuned[0], fingerprint=str(loaded.steps.inputs.get("tuned", "")))]
    found = provenance(settings.seed)
    report = Report(
        kind="audit" if all(section.compares for section in sections) else "stages",
        base=Model(source=settings.base, fingerprint=str(loaded.steps.inputs["base"])),
        tuned=next((one.tuned for one in results if one.tuned), tuned),
        vocabulary=loaded.vocabulary,
        settings={name: to_json(value) for name, value in asdict(settings).items()},
        sections=records,
        findings=together([finding for one in results for finding in one.findings]),
        gate=[],
        **found,
    )
    report = replace(report, gate=check(bounds, report.findings, settings.named(settings.chosen(sections))))
    report.write(Path(settings.out) / REPORT)
    write_text(Path(settings.out) / PAGE, audit_page(report, sections))
    track_report(report, settings.report_to, Path(settings.out))
    return report


def choose(settings: AuditSettings, sections: Sequence[AnySection]) -> list[Chosen]:
    """What is measured of the sections, read and checked before any model is loaded.

    Raises:
        ConfigError: a section is named that there is none of; nothing is left to measure.
    """
    left = settings.chosen(sections)
    chosen = []
    for section in sections:
        asked = section(settings) if section in left else None
        reason = asked.not_asked() if asked else f"left out by {'--quick' if _short(settings, section) else _FLAGS}"
        chosen.append(Chosen(section=section, asked=None if reason else asked, reason=reason))
    if not any(one.asked for one in chosen):
        reasons = "; ".join(f"{one.section.name}: {one.reason}" for one in chosen)
        raise ConfigError(f"there is nothing to measure ({reasons})", "leave out --only or --skip")
    return chosen


def _short(settings: AuditSettings, section: AnySection) -> bool:
    return settings.quick and section.name in LONG and not settings.only


def measure_sections(chosen: Sequence[Chosen], loaded: Loaded) -> tuple[list[SectionRecord], list[Measured]]:
    """Measure every section. What cannot be measured is said of it in its record, and the others go on.

    Raises:
        KeeptuneError: no section could be measured: the first one's error.
        Diverged, StorageError: at once; they concern all sections.
    """
    records, results, errors = [], [], []
    for one in chosen:
        record = SectionRecord(name=one.section.name, title=one.section.title, status=Status.NOT_RUN, reason=one.reason)
        if one.asked is not None:
            try:
                results.append(one.asked.measure(loaded))
                record = _record(record, results[-1])
            except (Diverged, StorageError, Interrupted):
                raise
            except (KeeptuneError, torch.OutOfMemoryError) as error:
                what = f"{error.what}; {error.fix}" if isinstance(error, KeeptuneError) else f"out of memory: {error}"
                logger.error(f"the section {record.name} could not be measured: {what}")
                record = replace(record, status=Status.ERROR, reason=what)
                errors.append(error)
        records.append(record)
    if not results:
        raise errors[0]
    return records, results


def _record(record: SectionRecord, measured: Measured) -> SectionRecord:
    judged = {finding.verdict for finding in measured.findings if finding.headline and finding.verdict}
    return replace(
        record,
        status=Status.NO_EVIDENCE if judged == {Verdict.NO_EVIDENCE} else Status.MEASURED,
        subjects=measured.subjects,
        methods=measured.methods,
        details=to_json(measured.details),
    )


def load(settings: AuditSettings, sections: Sequence[AnySection]) -> Loaded:
    """Load what these sections are measured with and on.

    The base writes its fresh text before the tuned model is loaded: while it writes there is a copy of it.
    """
    compares = any(section.compares for section in sections)
    for name in settings.tuned if compares else ():
        resolve_model(name)  # one that leads nowhere is told before the base writes its text
    tokenizer = load_tokenizer(settings.base)
    base = load_model(settings.base)
    check_tokenizer(base, tokenizer)
    sources: dict[str, str] = {}
    if any(section.reads_texts for section in sections):
        sources = text_sources(settings.text, chat=compares and _opens_chats(tokenizer))
    mark, folder = fingerprint(base), Path(settings.out) / STEPS
    samples, fresh = samples_of(settings, mark), {name: of for name, of in sources.items() if of in FRESH}
    if settings.quick and fresh:  # written whole, for audits that run side by side

        def sample(folder: Path) -> None:
            rows_of(fresh, base, tokenizer, folder, **settings.amount)

        samples = build_once(samples, sample)
    rows = rows_of(sources, base, tokenizer, samples, **settings.amount)
    check_length(base, longest(rows), "windows of text")
    release()
    if not compares:
        steps = Steps(folder, base=mark, versions=versions(), commit=commit())
        return Loaded(
            base=base, second=None, tokenizer=tokenizer, rows=rows, sources=sources, vocabulary=None, steps=steps
        )
    return _with_tuned(settings, base, tokenizer, rows, sources, mark)


def samples_of(settings: AuditSettings, mark: str) -> Path:
    """Where the base's own text is kept: beside the report; that of quick audits once for a base, in the cache."""
    if not settings.quick:
        return Path(settings.out) / SAMPLES
    given = [mark, settings.docs, settings.max_length, settings.seed, versions()]
    return cache_folder() / "audit" / digest_of(given)[:32]


def _with_tuned(
    settings: AuditSettings,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: dict[str, list[EncodedRow]],
    sources: dict[str, str],
    mark: str,
) -> Loaded:
    source = settings.tuned[0]
    # The recovery probe trains both models in place: then they must not share weights.
    tuned = load_tuned(source, base) if settings.recovery is None else load_model(source)
    tuned_tokenizer = load_tokenizer(source)
    check_sizes(tuned, tuned_tokenizer, longest(rows), "windows of text")
    marks = {"base": mark, "tuned": whole_fingerprint(tuned)}
    found = vocabularies(base, tuned, tokenizer, tuned_tokenizer)
    if settings.shared_vocabulary and not found.same:
        share_vocabulary(base, tuned, found)
        rows = {name: _shared_rows(name, of_text, found) for name, of_text in rows.items()}
    else:
        check_vocabularies(found)
    folder = Path(settings.out) / STEPS
    return Loaded(
        base=base,
        second=tuned,
        tokenizer=tokenizer,
        rows=rows,
        sources=sources,
        vocabulary=None if found.same else str(found),
        steps=Steps(folder, **marks, vocabulary=str(found), versions=versions(), commit=commit()),
    )


def _opens_chats(tokenizer: PreTrainedTokenizerBase) -> bool:
    if not tokenizer.chat_template:
        return False
    try:
        chat_opening(tokenizer)
    except ConfigError as error:
        logger.info(f"no fresh chats (self-chat): {error.what}")
        return False
    return True


def _shared_rows(name: str, rows: list[EncodedRow], found: Vocabularies) -> list[EncodedRow]:
    """The rows made of tokens that both models have."""
    kept = without_tokens(rows, set(found.differing), found.words)
    if left_out := len(rows) - len(kept):
        logger.warning(f"{name}: {left_out} of {len(rows)} windows hold tokens that differ, and are left out")
    if not kept:
        raise SourceError(f"every window of {name} holds a token that differs", "leave it out, or give another text")
    return kept
