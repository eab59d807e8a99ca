"""The recovery probe: does brief tuning bring back what a model lost, or is it gone?

Much of a drop after fine-tuning can be spurious, a matter of format that a few steps on old text undo (Zheng et al.
2025, arXiv 2501.13453). Both models are tuned briefly in the same way on half of a text's documents and measured on the
other half. The part of the gap between them that remains was lost, the part that closes was not.

Shapes: B rows, D documents.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import nn

from keeptune.audit.meter import Drift, measure, pad_rows
from keeptune.audit.run import Loaded
from keeptune.audit.texts import Row
from keeptune.audit.verdict import NO_EVIDENCE
from keeptune.errors import ConfigError
from keeptune.log import track
from keeptune.models.modeling import autocast, training_dtype
from keeptune.stats import MIN_DOCUMENTS, bootstrap_ratio
from keeptune.train.loop import task_sum

STEPS = 16
ROWS = 4
LEARNING_RATE = 5e-5
MAX_GRAD_NORM = 1.0
SPURIOUS = "mostly spurious"
LOST = "mostly lost"
UNDECIDED = "undecided"
NOTHING = "nothing to recover"
MEANINGS = {
    SPURIOUS: "brief tuning brings most of it back",
    LOST: "brief tuning brings little of it back",
    UNDECIDED: "the interval of the recovered share contains one half",
    NOTHING: "the tuned model does not predict this text worse",
    NO_EVIDENCE: f"fewer than {MIN_DOCUMENTS} held-out documents",
}
RULE = (
    f"{NO_EVIDENCE}: {MEANINGS[NO_EVIDENCE]}. {NOTHING}: the interval of the gap before tuning reaches 0. "
    f"{SPURIOUS}: the whole interval of the recovered share lies above one half. {LOST}: all of it lies below. "
    f"{UNDECIDED}: otherwise."
)


def recovery_probe(loaded: Loaded, text: str, seed: int) -> dict[str, Any]:
    """Run the probe on one text of `loaded.rows`, for JSON. Both models are tuned in place, so it must come last.

    Returns:
        `gap_before`, `gap_after`, CE(tuned) − CE(base) on the held-out half before and after both were tuned, and the
        CE of each, nats per token, with intervals over documents; `recovered_share`, 1 − gap after / gap before (None
        if the interval of the gap reaches 0); `verdict` by `rule` and its `meaning`; and how it was done.

    Raises:
        ConfigError: fewer than two documents.
    """
    tuning, held_out = halves(loaded.rows[text], seed)
    step = loaded.steps.of(tuning=tuning, held_out=held_out, seed=seed, steps=STEPS, rows=ROWS, rate=LEARNING_RATE)
    readings = step.once(f"recovery on {text}", lambda: _before_and_after(loaded, tuning, held_out, seed))
    before, after = (Drift.from_dict(readings[when]) for when in ("before", "after"))
    gap_before_D, gap_after_D = before.column("ce_change"), after.column("ce_change")
    gap = before.interval("ce_change")
    # A gap that may be 0 has no share.
    share = bootstrap_ratio(gap_before_D - gap_after_D, gap_before_D).as_dict() if (gap.low or 0) > 0 else None
    judged = verdict(gap.as_dict(), share)
    return {
        "text": text,
        "documents_tuned_on": len({row["document"] for row in tuning}),
        "documents": len(before.documents),
        "steps": STEPS,
        "rows_a_step": ROWS,
        "learning_rate": LEARNING_RATE,
        "measures": {
            f"{name}_{when}": drift.interval(measure_name).as_dict()
            for name, measure_name in (("gap", "ce_change"), ("ce_base", "ce_base"), ("ce_tuned", "ce"))
            for when, drift in (("before", before), ("after", after))
        },
        "recovered_share": share,
        "verdict": judged,
        "meaning": MEANINGS[judged],
        "rule": RULE,
    }


def verdict(gap: dict[str, Any], share: dict[str, Any] | None) -> str:
    """`RULE` in code, from the intervals of the gap before tuning and of the recovered share."""
    if gap["low"] is None or gap["documents"] < MIN_DOCUMENTS:
        return NO_EVIDENCE
    if share is None:
        return NOTHING
    if share["low"] > 0.5:
        return SPURIOUS
    return LOST if share["high"] < 0.5 else UNDECIDED


def halves(rows: list[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """The rows of half of the documents, to tune on, and of the others; raises `ConfigError` for a single document."""
    documents = sorted({row["document"] for row in rows})
    if len(documents) < 2:
        raise ConfigError("a single document cannot be split into two halves", "probe a text of two or more documents")
    chosen = set(random.Random(seed).sample(documents, len(documents) // 2))  # noqa: S311 — a split, no secret
    return [row for row in rows if row["document"] in chosen], [row for row in rows if row["document"] not in chosen]


def _before_and_after(loaded: Loaded, tuning: list[Row], held_out: list[Row], seed: int) -> dict[str, Any]:
    before = measure(loaded.base, loaded.tuned, held_out, label="Measuring the held-out half")
    tune_briefly(loaded.base, tuning, seed, "Tuning the base briefly")
    tune_briefly(loaded.tuned, tuning, seed, "Tuning the tuned briefly")
    after = measure(loaded.base, loaded.tuned, held_out, label="Measuring the held-out half again")
    return {"before": before.as_dict(), "after": after.as_dict()}


def tune_briefly(model: nn.Module, rows: list[Row], seed: int, label: str = "Tuning briefly") -> None:
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
