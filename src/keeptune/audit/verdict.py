"""The noise floor that drift is held against, and the refusal of predictions that are no numbers.

The noise floor is how far the base seems to drift from itself when only the arithmetic is another. Two computations of
one model differ by rounding: by the dtype of its layers, and by which rows share a batch. A drift within that is not
distinguishable from zero.

Shapes: B rows, T positions, N target tokens, D documents or, beside T or N, the model's width.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from keeptune.audit.meter import Drift, final_states, measure
from keeptune.data.tokens import EncodedRow
from keeptune.errors import Diverged
from keeptune.models.modeling import autocast, training_dtype
from keeptune.report.measures import Verdict
from keeptune.stats import Interval, evenly_spaced

FLOOR_DOCUMENTS = 8
NO_EVIDENCE = Verdict.NO_EVIDENCE.value
FLOOR_MEASURES = ("kl", "l_f_rise", "ce_change", "agreement")


def require_finite(drift: Drift, text: str) -> None:
    """Refuse readings that are no numbers: every comparison with them is false, and a gate would let them through.

    Raises:
        Diverged: a measure is NaN or infinite.
    """
    broken = [name for name, sum_D in zip(drift.documents, drift.sums_DM, strict=True) if not np.isfinite(sum_D).all()]
    if broken:
        raise Diverged(
            f"the models' predictions on {len(broken)} of {len(drift.documents)} documents of {text} are no numbers",
            "a checkpoint holds NaN or infinite weights, or overflows: audit an earlier one",
        )


def noise_floor(
    base: nn.Module,
    rows: Iterable[EncodedRow],
    label: str = "Measuring the noise floor",
    dtype: torch.dtype | None = None,
) -> dict[str, Interval]:
    """Each of `FLOOR_MEASURES` of the base against itself under other numerics (`how`), on a small part of a text.

    Args:
        rows: as `measure` takes them; the first window with a target of each of 8 documents, evenly spaced, is read.
        dtype: as in `measure`.

    Raises:
        ValueError: no row has a target.
    """
    drift = measure(base, base, part(rows), dtype=dtype, label=label, tuned_states=other_states)
    return {name: drift.interval(name) for name in FLOOR_MEASURES}


def floors_of(base: nn.Module, rows: Iterable[EncodedRow], label: str) -> dict[str, float]:
    """The noise floor of each of `FLOOR_MEASURES` on a text, as `bound_of` has it."""
    return {name: bound_of(name, interval) for name, interval in noise_floor(base, rows, label).items()}


def bound_of(measure_name: str, interval: Interval) -> float:
    """The size that rounding alone can give a measure: the end of its interval that lies farthest from no drift.

    No drift is 0, for agreement 1. The value itself stands in for an interval that one document cannot give.
    """
    no_drift = 1.0 if measure_name == "agreement" else 0.0
    ends = (interval.value, interval.low, interval.high)
    return max(abs(end - no_drift) for end in ends if end is not None)


def part(rows: Iterable[EncodedRow], documents: int = FLOOR_DOCUMENTS) -> list[EncodedRow]:
    """One window of each of at most so many documents, evenly spaced over those that have a target."""
    first: dict[str, EncodedRow] = {}
    for row in rows:
        if any(label != -100 for label in row["labels"][1:]):
            first.setdefault(row["document"], row)
    windows = list(first.values())
    return [windows[place] for place in evenly_spaced(len(windows), documents)]


def how(base: nn.Module, dtype: torch.dtype | None = None) -> str:
    """What differs between the two computations of `noise_floor` on this machine, in words."""
    dtype = dtype or training_dtype(base)
    name = str(dtype).removeprefix("torch.")
    layers = f"; layers in float32 against {name}" if _other_dtype(base) != dtype else f" in {name}"
    return (
        f"the base against itself on one window of at most {FLOOR_DOCUMENTS} documents of each text: "
        f"each row alone and unpadded against rows in a batch{layers}; the head as in the audit"
    )


@torch.no_grad()
def other_states(model: nn.Module, input_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The states that `measure` reads [N, D], computed row by row, cut after the last target, in another dtype.

    Every row has a target.
    """
    device = next(model.parameters()).device
    states = []
    for input_T, mask_T in zip(input_BT, mask_BT, strict=True):
        length = int(mask_T.nonzero().max()) + 1
        with autocast(device, _other_dtype(model)):
            hidden_1TD = final_states(model, input_T[None, :length].to(device))
        states.append(hidden_1TD[0][mask_T[:length].to(device)])
    return torch.cat(states)


def _other_dtype(model: nn.Module) -> torch.dtype:
    """That of the weights: fp32 where the audit computes in bfloat16 by autocast, else the same again."""
    return next(model.parameters()).dtype
