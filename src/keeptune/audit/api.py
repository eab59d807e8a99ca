"""An audit from Python: what `keeptune audit` does on the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keeptune.audit.gate import parse_bounds
from keeptune.audit.run import audit as run_audit
from keeptune.audit.settings import AuditSettings
from keeptune.audit.texts import NAME
from keeptune.errors import ConfigError
from keeptune.report.document import Report
from keeptune.storage import write_text


def audit(
    base: str | Path,
    tuned: str | Path,
    texts: Mapping[str, str | Path | Sequence[str]] | None = None,
    *,
    out: str | Path = "audit",
    bounds: Sequence[str] = (),
    **settings: Any,
) -> Report:
    """Measure what `tuned` forgot of `base`; writes report.json, report.html and findings.csv in `out`.

    An audit that was interrupted resumes from its finished parts in `out`.

    Args:
        base, tuned: a hub id, a folder, a .gguf file, or smollm2; `tuned` may be an adapter on the base.
        texts: texts to measure on, beside the base's own, by name: a source as of `keeptune.load_documents`, or a list
            of plain texts, each a document.
        out: folder of the report.
        bounds: as `--fail-above`, such as `["kl=0.02"]`; the report's `gate` says what became of them.
        **settings: fields of `keeptune.audit.settings.AuditSettings`, such as `docs=32` or `task=["arc"]`.

    Returns:
        The report that report.json holds: `report.findings`, of which `report.select("drift", measure="kl")` gives
        some; `report.gate`; `report.sections`.

    Raises:
        ConfigError: models with different vocabularies, or settings that do not fit.
        SourceError: a model, text or task cannot be read.
        Diverged: a model predicts NaN or infinite values.
    """
    sources = [f"{name}={_source(name, text, Path(out))}" for name, text in (texts or {}).items()]
    asked = AuditSettings(base=str(base), tuned=(str(tuned),), out=str(out), text=sources, **settings)
    if asked.recovery is not None:
        raise ConfigError("the recovery probe trains both models", "run it with: keeptune audit --recovery TEXT")
    return run_audit(asked, parse_bounds(bounds, asked.named(asked.chosen())))


def _source(name: str, text: str | Path | Sequence[str], out: Path) -> str:
    """What the command line would be given; plain texts are written to `<out>/texts/NAME.jsonl`."""
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no plain name for a text", "use letters, digits, dots, dashes and underscores")
    if isinstance(text, str | Path):
        return str(text)
    if not text or not all(isinstance(document, str) for document in text):
        raise ConfigError(f"texts[{name!r}] is not a list of strings", "give each document as one string")
    file = out / "texts" / f"{name}.jsonl"
    write_text(file, "".join(json.dumps({"text": document}) + "\n" for document in text))
    return str(file)
