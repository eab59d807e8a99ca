"""Two models' answers to the same questions: what was lost, what was gained, and how sure that is.

The questions are the same for both models, so only those on which they differ tell them apart.

Shapes: I items.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from keeptune.stats import LEVEL, Interval, clopper_pearson, mcnemar, wilson

Indices = npt.NDArray[np.int64]

_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


def difference(lost: int, gained: int, items: int) -> Interval:
    """Second accuracy − first accuracy, with Wald's interval for paired answers.

    Where no item changed, that interval would have no width. Then the exact (Clopper–Pearson) bound on the share of
    items that change stands at either side.

    Raises:
        ValueError: negative counts, or more changed items than items.
    """
    if min(lost, gained) < 0 or items < 1 or lost + gained > items:
        raise ValueError(f"{lost} lost and {gained} gained do not fit {items} items")
    value = (gained - lost) / items
    if lost + gained:
        half = _Z * math.sqrt(lost + gained - (gained - lost) ** 2 / items) / items
    else:
        half = float(clopper_pearson(0, items).ends()["high"])
    return Interval(value=value, low=value - half, high=value + half, documents=items)


def chance_changes(base_accuracy: float, tuned_accuracy: float, options_I: Indices) -> float:
    """The share of items that guessing alone would turn from right to wrong, and as many from wrong to right.

    A model knows an answer or guesses evenly among k: its lucky guesses are (1 − accuracy) / (k − 1) of the items.
    Lucky before and wrong after is ((1 − base) / (k − 1)) · (1 − tuned); exchanging the two models changes nothing
    (Harmon et al. 2025, arXiv 2510.17776). It takes the two models' guesses for independent, which overstates chance
    where they are nearly one model. Items with different numbers of options k enter with their mean of 1 / (k − 1).

    Raises:
        ValueError: an accuracy outside 0 … 1, no items, or one with fewer than two options.
    """
    if not (0 <= base_accuracy <= 1 and 0 <= tuned_accuracy <= 1):
        raise ValueError(f"accuracies lie between 0 and 1, not {base_accuracy} and {tuned_accuracy}")
    if not len(options_I) or options_I.min() < 2:
        raise ValueError("every item needs two options or more")
    return float((1 - base_accuracy) * (1 - tuned_accuracy) * np.mean(1 / (options_I - 1)))


def compare(right_I: Indices, base_I: Indices, tuned_I: Indices, options_I: Indices) -> dict[str, Any]:
    """Everything that two models' answers to the same items say, for JSON; all but counts and p are shares of items.

    Args:
        right_I, base_I, tuned_I: the right option and each model's, int64 [I]; options_I: how many there are.

    Returns:
        `items`, `accuracy_base`, `accuracy_tuned`, `change` and `agreement` (same option chosen, right or wrong) as
        value, low, high; the counts `right_to_wrong` and `wrong_to_right` with `mcnemar_p`; `forgetting` and
        `backward_transfer` as `raw`, the part that is `chance`, and `beyond_chance` = max(raw − chance, 0).

    Raises:
        ValueError: no items, or arrays of different lengths.
    """
    items = len(right_I)
    if not items or {right_I.shape, base_I.shape, tuned_I.shape, options_I.shape} != {(items,)}:
        raise ValueError("need one answer of each model, the right one and the number of options for every item")
    base_right_I, tuned_right_I = base_I == right_I, tuned_I == right_I
    lost, gained = int((base_right_I & ~tuned_right_I).sum()), int((tuned_right_I & ~base_right_I).sum())
    base_accuracy, tuned_accuracy = wilson(int(base_right_I.sum()), items), wilson(int(tuned_right_I.sum()), items)
    chance = chance_changes(base_accuracy.value, tuned_accuracy.value, options_I)
    return {
        "items": items,
        "accuracy_base": base_accuracy.ends(),
        "accuracy_tuned": tuned_accuracy.ends(),
        "change": difference(lost, gained, items).ends(),
        "right_to_wrong": lost,
        "wrong_to_right": gained,
        "mcnemar_p": mcnemar(lost, gained),
        "agreement": wilson(int((base_I == tuned_I).sum()), items).ends(),
        "forgetting": _beyond(lost / items, chance),
        "backward_transfer": _beyond(gained / items, chance),
    }


def _beyond(raw: float, chance: float) -> dict[str, float]:
    return {"raw": raw, "chance": chance, "beyond_chance": max(raw - chance, 0.0)}
