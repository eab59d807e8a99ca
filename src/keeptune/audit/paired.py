"""Two models' answers to the same questions: what was lost, what was gained, and how sure that is.

The questions are the same for both models, so only those on which they differ tell them apart.

Shapes: I items.
"""

from __future__ import annotations

import math
from enum import StrEnum
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from keeptune.stats import LEVEL, Interval, mcnemar, wilson

Indices = npt.NDArray[np.int64]

CORRECTION_MARGIN = 0.1
"""How far from chance the share of equal wrong answers may lie where guesses are called independent."""
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


class Guesses(StrEnum):
    """Whether two models guess independently of each other where both do not know, which the correction assumes."""

    INDEPENDENT = "independent"
    """Where both are wrong, they choose the same wrong option as often as chance, within `CORRECTION_MARGIN`."""
    ALIKE = "alike"
    """They choose the same wrong option more often, or fewer answers changed than independent guesses change."""
    UNLIKE = "unlike"
    """They choose the same wrong option less often than chance."""
    UNKNOWN = "unknown"
    """Too few items that both answer wrongly, or only two options, which leave no choice between wrong ones."""


ASSUMPTION = (
    "The correction assumes that the models guess independently of each other. That is tested where both are wrong: "
    "the whole 95 % interval of the share of equal wrong options must lie within "
    f"{CORRECTION_MARGIN:g} of chance, and the changed answers must not be surely fewer than independent guesses give. "
    "Otherwise no corrected number is reported; the raw ones and McNemar's p need no such assumption."
)


def difference(lost: int, gained: int, items: int) -> Interval:
    """Second accuracy − first accuracy, with Bonett and Price's interval for paired answers, within −1 … 1.

    It is Wald's with one more item lost and one more gained (Bonett & Price 2012, Adjusted Wald confidence interval for
    a difference of binomial proportions based on paired data, doi:10.3102/1076998611411915). Wald's own covers 91 % at
    20 items, and has no width where nothing changed.

    Raises:
        ValueError: negative counts, or more changed items than items.
    """
    if min(lost, gained) < 0 or items < 1 or lost + gained > items:
        raise ValueError(f"{lost} lost and {gained} gained do not fit {items} items")
    changed, moved = (lost + gained + 2) / (items + 2), (gained - lost) / (items + 2)
    half = _Z * math.sqrt((changed - moved**2) / (items + 2))
    low, high = max(moved - half, -1.0), min(moved + half, 1.0)
    return Interval(value=(gained - lost) / items, low=low, high=high, documents=items)


def chance_changes(base_accuracy: float, tuned_accuracy: float, options_I: Indices) -> float:
    """The share of items that guessing alone would turn from right to wrong, and as many from wrong to right.

    A model knows an answer or guesses evenly among k: its lucky guesses are (1 − accuracy) / (k − 1) of the items.
    Lucky before and wrong after is ((1 − base) / (k − 1)) · (1 − tuned); exchanging the two models changes nothing
    (Harmon et al. 2025, arXiv 2510.17776). It takes the two models' guesses for independent, which `guesses` tests: two
    models that are nearly one share their guesses. Items with different numbers of options k enter with their mean of
    1 / (k − 1).

    Raises:
        ValueError: an accuracy outside 0 … 1, no items, or one with fewer than two options.
    """
    if not (0 <= base_accuracy <= 1 and 0 <= tuned_accuracy <= 1):
        raise ValueError(f"accuracies lie between 0 and 1, not {base_accuracy} and {tuned_accuracy}")
    if not len(options_I) or options_I.min() < 2:
        raise ValueError("every item needs two options or more")
    return float((1 - base_accuracy) * (1 - tuned_accuracy) * np.mean(1 / (options_I - 1)))


def guesses(right_I: Indices, base_I: Indices, tuned_I: Indices, options_I: Indices) -> dict[str, Any]:
    """Whether two models guess independently of each other, for JSON; see `ASSUMPTION`.

    Independent guesses among k − 1 wrong options are equal in 1 / (k − 1) of the items that both answer wrongly; and at
    least as many answers change as `chance_changes` says.

    Returns:
        `guesses`; `both_wrong`, the items with three options or more that both answer wrongly; `same_wrong_option`, the
        share of them with the same option, as value, low, high; `by_chance`, that share for independent guesses. The
        last two are None without such items.
    """
    base_right_I, tuned_right_I = base_I == right_I, tuned_I == right_I
    both_wrong_I = ~base_right_I & ~tuned_right_I & (options_I > 2)
    both_wrong = int(both_wrong_I.sum())
    changed = min(int((base_right_I & ~tuned_right_I).sum()), int((tuned_right_I & ~base_right_I).sum()))
    least = chance_changes(float(base_right_I.mean()), float(tuned_right_I.mean()), options_I)
    result = Guesses.ALIKE if wilson(changed, len(right_I)).ends()["high"] < least else Guesses.UNKNOWN
    if not both_wrong:
        return {"guesses": result, "both_wrong": 0, "same_wrong_option": None, "by_chance": None}
    same = wilson(int((both_wrong_I & (base_I == tuned_I)).sum()), both_wrong).ends()
    by_chance = float(np.mean(1 / (options_I[both_wrong_I] - 1)))
    near = same["high"] - CORRECTION_MARGIN <= by_chance <= same["low"] + CORRECTION_MARGIN
    if result == Guesses.UNKNOWN and near:
        result = Guesses.INDEPENDENT
    elif same["low"] > by_chance:
        result = Guesses.ALIKE
    elif same["high"] < by_chance:
        result = Guesses.UNLIKE
    return {"guesses": result, "both_wrong": both_wrong, "same_wrong_option": same, "by_chance": by_chance}


def compare(right_I: Indices, base_I: Indices, tuned_I: Indices, options_I: Indices) -> dict[str, Any]:
    """Everything that two models' answers to the same items say, for JSON; all but counts and p are shares of items.

    Args:
        right_I, base_I, tuned_I: the right option and each model's, int64 [I]; options_I: how many there are.

    Returns:
        `items`, `accuracy_base`, `accuracy_tuned`, `change` and `agreement` (same option chosen, right or wrong) as
        value, low, high; the counts `right_to_wrong` and `wrong_to_right` with `mcnemar_p`; `forgetting` and
        `backward_transfer` as `raw` with `low` and `high`, and, if the models guess independently, the part that is
        `chance` and `beyond_chance` = max(raw − chance, 0), else None for both; `correction`, what `guesses` says.

    Raises:
        ValueError: no items, or arrays of different lengths.
    """
    items = len(right_I)
    if not items or {right_I.shape, base_I.shape, tuned_I.shape, options_I.shape} != {(items,)}:
        raise ValueError("need one answer of each model, the right one and the number of options for every item")
    base_right_I, tuned_right_I = base_I == right_I, tuned_I == right_I
    lost, gained = int((base_right_I & ~tuned_right_I).sum()), int((tuned_right_I & ~base_right_I).sum())
    base_accuracy, tuned_accuracy = wilson(int(base_right_I.sum()), items), wilson(int(tuned_right_I.sum()), items)
    correction = guesses(right_I, base_I, tuned_I, options_I)
    chance = None
    if correction["guesses"] == Guesses.INDEPENDENT:
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
        "forgetting": _beyond(lost, items, chance),
        "backward_transfer": _beyond(gained, items, chance),
        "correction": correction,
    }


def _beyond(count: int, items: int, chance: float | None) -> dict[str, float | None]:
    raw = wilson(count, items)
    beyond = None if chance is None else max(raw.value - chance, 0.0)
    return {"raw": raw.value, "low": raw.low, "high": raw.high, "chance": chance, "beyond_chance": beyond}
