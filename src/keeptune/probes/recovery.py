"""The recovery probe: does brief tuning bring back what a model lost, or is it gone?

Much of a drop after fine-tuning can be spurious, a matter of format that a few steps on old text undo (Zheng et al.
2025, arXiv 2501.13453). Both models are tuned briefly in the same way on half of a text's documents and measured on the
other half. The part of the gap between them that remains was lost, the part that closes was not.

Shapes: B rows, D documents.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from keeptune.audit.meter import Drift, measure, pad_rows
from keeptune.audit.section import Cost, Loaded, Measured, Section
from keeptune.audit.settings import AuditSettings
from keeptune.data.tokens import EncodedRow
from keeptune.errors import ConfigError
from keeptune.log import track
from keeptune.models.modeling import autocast, training_dtype
from keeptune.report.codec import JsonValue, once
from keeptune.report.document import SectionRecord
from keeptune.report.finding import Finding, Level, found
from keeptune.report.view import View, default_view, findings_table
from keeptune.report.words import counted
from keeptune.stats import bootstrap_ratio
from keeptune.train.loop import task_sum

STEPS = 16
ROWS = 4
LEARNING_RATE = 5e-5
MAX_GRAD_NORM = 1.0
RULE = (
    "Mostly spurious: the whole interval of the recovered share lies above one half. Mostly lost: all of it lies "
    "below. Undecided: otherwise. Nothing to recover: the interval of the gap before tuning reaches 0."
)


@dataclass(frozen=True, kw_only=True)
class RecoveryReading:
    """The held-out half before and after both models were tuned on the other; a finished step."""

    before: dict[str, JsonValue]
    """`Drift.as_dict`."""
    after: dict[str, JsonValue]


class Recovery(Section[AuditSettings]):
    """The probe on one text. Both models are tuned in place, so it must come last."""

    name, title, reads_texts = "recovery", "What brief tuning brings back", True

    def not_asked(self) -> str:
        """Why there is nothing to measure."""
        return "" if self.settings.recovery else "no --recovery is given"

    def cost(self) -> Cost:
        """Half of the text is read twice, and both models train on a few rows of the other half."""
        settings = self.settings
        read = settings.docs * settings.windows * settings.max_length
        return Cost(items=settings.docs, read=read, trained=STEPS * ROWS * settings.max_length)

    def measure(self, loaded: Loaded) -> Measured:
        """CE(tuned) − CE(base) on the held-out half before and after, and which part of the gap closed.

        Raises:
            ConfigError: fewer than two documents.
        """
        text, seed = self.settings.recovery or "", self.settings.seed
        tuning, held_out = halves(loaded.rows[text], seed)
        step = loaded.steps.of(tuning=tuning, held_out=held_out, seed=seed, steps=STEPS, rows=ROWS, rate=LEARNING_RATE)
        probe = partial(_before_and_after, loaded, tuning, held_out, seed)
        readings = once(step, f"recovery on {text}", RecoveryReading, probe)
        before, after = Drift.from_dict(readings.before), Drift.from_dict(readings.after)
        documents = len({row["document"] for row in tuning})
        method = (
            f"Recovery: both models tuned alike for {counted(STEPS, 'step')} of {counted(ROWS, 'row')} at learning "
            f"rate {LEARNING_RATE:g} on {counted(documents, 'document')} of {text}, read on "
            f"{counted(len(before.documents), 'other document')}. {RULE}"
        )
        return Measured(findings=list(recovery_findings(text, before, after)), methods=[method])

    @classmethod
    def view(cls, record: SectionRecord, findings: Sequence[Finding]) -> View:
        """The gap before and after, and the share of it that closed."""
        prose = (
            "Both models were tuned alike on one half of a text and read on the other half: what closed of the gap "
            "between them was not lost."
        )
        return default_view(
            record, findings, prose, charts=[], tables=[findings_table("recovery", cls.title, findings)]
        )


def recovery_findings(text: str, before: Drift, after: Drift) -> Iterator[Finding]:
    """The gap before and after tuning, and the part of it that closed; a gap that may be 0 has no part."""
    gap, section = before.interval("ce_change"), Recovery.name
    share_known = (gap.low or 0.0) > 0
    for name, drift in (("gap_before", before), ("gap_after", after)):
        levels = [Level.of(drift.interval(of)) for of in ("ce_base", "ce")]
        shown = name == "gap_before" and not share_known
        change = drift.interval("ce_change")
        yield found(section, text, name, change, "document", base=levels[0], tuned=levels[1], headline=shown)
    if share_known:
        before_D, after_D = before.column("ce_change"), after.column("ce_change")
        share = bootstrap_ratio(before_D - after_D, before_D)
        yield found(section, text, "recovered_share", share, "document", headline=True)


def halves(rows: list[EncodedRow], seed: int) -> tuple[list[EncodedRow], list[EncodedRow]]:
    """The rows of half of the documents, to tune on, and of the others; raises `ConfigError` for a single document."""
    documents = sorted({row["document"] for row in rows})
    if len(documents) < 2:
        raise ConfigError("a single document cannot be split into two halves", "probe a text of two or more documents")
    chosen = set(random.Random(seed).sample(documents, len(documents) // 2))  # noqa: S311 — a split, no secret
    return [row for row in rows if row["document"] in chosen], [row for row in rows if row["document"] not in chosen]


def _before_and_after(
    loaded: Loaded, tuning: list[EncodedRow], held_out: list[EncodedRow], seed: int
) -> RecoveryReading:
    before = measure(loaded.base, loaded.tuned, held_out, label="Measuring the held-out half")
    tune_briefly(loaded.base, tuning, seed, "Tuning the base briefly")
    tune_briefly(loaded.tuned, tuning, seed, "Tuning the tuned briefly")
    after = measure(loaded.base, loaded.tuned, held_out, label="Measuring the held-out half again")
    return RecoveryReading(before=before.as_dict(), after=after.as_dict())


def tune_briefly(model: nn.Module, rows: list[EncodedRow], seed: int, label: str = "Tuning briefly") -> None:
    """`STEPS` steps of AdamW on all weights, in place. The seed gives the order of the rows."""
    device, dtype = next(model.parameters()).device, training_dtype(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    order = random.Random(seed)  # noqa: S311 — an order, no secret
    model.train()
    with track(label, STEPS, "steps") as progress:
        for _ in range(STEPS):
            input_BT, label_BT = pad_rows(order.sample(rows, min(ROWS, len(rows))))
            batch = {"input_ids": input_BT.to(device), "labels": label_BT.to(device)}
            with autocast(device, dtype):
                loss = task_sum(model, batch) / (label_BT[:, 1:] != -100).sum()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
            optimizer.step()
            optimizer.zero_grad()
            progress.advance()
    model.eval()
