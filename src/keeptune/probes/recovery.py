"""The recovery probe: does brief tuning bring back what a model lost, or is it gone?

Much of a drop after fine-tuning can be spurious, a matter of format that a few steps on old text undo (Zheng et al.
2025, arXiv 2501.13453). Both models are tuned alike and briefly on half of a text's documents, and read on the other
half: what is left of the gap between them was lost, what closed was not.

Shapes: B rows, D documents.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import nn

from keeptune.audit.meter import Drift, measure, pad_rows
from keeptune.audit.run import Loaded
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
SPURIOUS = "mostly spurious: brief tuning brings most of it back"
LOST = "mostly lost: brief tuning brings little of it back"
UNDECIDED = "undecided: the interval holds both"
NOTHING = "nothing to recover: the tuned model predicts this text no worse"
RULE = (
    f"{NO_EVIDENCE}: fewer than {MIN_DOCUMENTS} held-out documents. {NOTHING}: the interval of the gap before tuning "
    f"reaches 0. {SPURIOUS}: the whole interval of the recovered share lies above one half. {LOST}: all of it below. "
    f"{UNDECIDED}: otherwise."
)


def recovery_probe(loaded: Loaded, text: str, seed: int) -> dict[str, Any]:
    """Run the probe on one text of an audit, for JSON. Both models are tuned in place: nothing can follow it.

    Args:
        text: a name among `loaded.rows`.

    Returns:
        `gap_before`, `gap_after`, CE(tuned) − CE(base) on the held-out half before and after both were tuned, and the
        CE of each, nats per token, with intervals over documents; `recovered_share`, 1 − gap after / gap before (None
        where the gap may be none); `verdict` by `rule`; and how it was done.

    Raises:
        ConfigError: fewer than two documents.
    """
    tuning, held_out = halves(loaded.rows[text], seed)
    step = loaded.steps.of(tuning=tuning, held_out=held_out, seed=seed, steps=STEPS, rows=ROWS, rate=LEARNING_RATE)
    readings = step.once(f"recovery on {text}", lambda: _before_and_after(loaded, tuning, held_out, seed))
    before, after = (Drift.from_dict(readings[when]) for when in ("before", "after"))
    gap_before_D, gap_after_D = before.column("ce_change"), after.column("ce_change")
    gap = before.interval("ce_change")
    # Of a gap that may be none there is no share.
    share = bootstrap_ratio(gap_before_D - gap_after_D, gap_before_D).as_dict() if (gap.low or 0) > 0 else None
    return {
        "text": text,
        "documents_tuned_on": len({row["document"] for row in tuning}),
        "documents": len(before.documents),
        "steps": STEPS,
        "rows_a_step": ROWS,
        "learning_rate": LEARNING_RATE,
        "measures": {
            "gap_before": gap.as_dict(),
            "gap_after": after.interval("ce_change").as_dict(),
            "ce_base_before": before.interval("ce_base").as_dict(),
            "ce_base_after": after.interval("ce_base").as_dict(),
            "ce_tuned_before": before.interval("ce").as_dict(),
            "ce_tuned_after": after.interval("ce").as_dict(),
        },
        "recovered_share": share,
        "verdict": verdict(gap.as_dict(), share),
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


def halves(rows: list[dict[str, Any]], seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of a random half of the documents, to tune on, and of the other half, to read.

    Raises:
        ConfigError: fewer than two documents.
    """
    documents = sorted({row["document"] for row in rows})
    if len(documents) < 2:
        raise ConfigError("a single document has no other half to read", "probe a text of more documents")
    chosen = set(random.Random(seed).sample(documents, len(documents) // 2))  # noqa: S311 — a split, no secret
    return [row for row in rows if row["document"] in chosen], [row for row in rows if row["document"] not in chosen]


def _before_and_after(
    loaded: Loaded, tuning: list[dict[str, Any]], held_out: list[dict[str, Any]], seed: int
) -> dict[str, Any]:
    before = measure(loaded.base, loaded.tuned, held_out, label="Reading the held-out half")
    for name, model in (("base", loaded.base), ("tuned", loaded.tuned)):
        tune_briefly(model, tuning, seed, f"Tuning the {name} briefly")
    after = measure(loaded.base, loaded.tuned, held_out, label="Reading it again")
    return {"before": before.as_dict(), "after": after.as_dict()}


def tune_briefly(model: nn.Module, rows: list[dict[str, Any]], seed: int, label: str = "Tuning briefly") -> None:
    """`STEPS` steps of AdamW on all weights, in place, the rows in an order that the seed gives."""
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
