"""A text read once by both models: how far they drifted, and where; a finished step that two sections share."""

from __future__ import annotations

from dataclasses import dataclass

from keeptune.audit.meter import measure
from keeptune.audit.section import Loaded
from keeptune.audit.verdict import floors_of, require_finite
from keeptune.audit.where.collector import Where, WhereText
from keeptune.report.codec import JsonValue, once


@dataclass(frozen=True, kw_only=True)
class TextReading:
    """One text, read once by both models; a finished step."""

    drift: dict[str, JsonValue]
    """`Drift.as_dict`."""
    floors: dict[str, float]
    """The noise floor of each judged measure."""
    where: WhereText


def read_text(loaded: Loaded, name: str) -> TextReading:
    """Read one text with both models, unless an earlier run did.

    Raises:
        Diverged: the models' predictions are no numbers.
    """
    rows = loaded.rows[name]

    def read() -> TextReading:
        where = Where(loaded.tokenizer)
        drift = measure(loaded.base, loaded.tuned, rows, label=f"Measuring on {name}", on_tokens=where.add)
        require_finite(drift, name)
        floors = floors_of(loaded.base, rows, label=f"Measuring the noise floor on {name}")
        return TextReading(drift=drift.as_dict(), floors=floors, where=where.summary())

    return once(loaded.steps.of(rows=rows), f"text {name}", TextReading, read)
