"""Two models' answers to the same questions: what was lost, what was gained, and how sure that is.

The questions are the same for both models, so only those on which they differ tell them apart.

Shapes: I items.
"""

from __future__ import annotations

import math
from enum import StrEnum
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from keeptune.stats import LEVEL, Interval, wilson

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
    (Harmon et al. 2025, arXiv 2510.17776). It takes the two models' guesses for independent, which `guessing` tests:
    two models that are nearly one share their guesses. Items with different numbers of options k enter with their mean
    of 1 / (k − 1).

    Raises:
        ValueError: an accuracy outside 0 … 1, no items, or one with fewer than two options.
    """
    if not (0 <= base_accuracy <= 1 and 0 <= tuned_accuracy <= 1):
        raise ValueError(f"accuracies lie between 0 and 1, not {base_accuracy} and {tuned_accuracy}")
    if not len(options_I) or options_I.min() < 2:
        raise ValueError("every item needs two options or more")
    return float((1 - base_accuracy) * (1 - tuned_accuracy) * np.mean(1 / (options_I - 1)))


class Guessing(NamedTuple):
    """What the items that two models both answer wrongly say of how they guess."""

    guesses: Guesses
    both_wrong: int = 0
    """Items with three options or more that both answer wrongly."""
    same_wrong_option: Interval | None = None
    """The share of them with the same option; None without such items."""
    by_chance: float | None = None
    """That share for independent guesses."""


def guessing(right_I: Indices, base_I: Indices, tuned_I: Indices, options_I: Indices) -> Guessing:
    """Whether two models guess independently of each other; see `ASSUMPTION`.

    Independent guesses among k − 1 wrong options are equal in 1 / (k − 1) of the items that both answer wrongly; and at
    least as many answers change as `chance_changes` says.
    """
    base_right_I, tuned_right_I = base_I == right_I, tuned_I == right_I
    both_wrong_I = ~base_right_I & ~tuned_right_I & (options_I > 2)
    both_wrong = int(both_wrong_I.sum())
    changed = min(int((base_right_I & ~tuned_right_I).sum()), int((tuned_right_I & ~base_right_I).sum()))
    least = chance_changes(float(base_right_I.mean()), float(tuned_right_I.mean()), options_I)
    result = Guesses.ALIKE if (wilson(changed, len(right_I)).high or 0.0) < least else Guesses.UNKNOWN
    if not both_wrong:
        return Guessing(result)
    same = wilson(int((both_wrong_I & (base_I == tuned_I)).sum()), both_wrong)
    low, high = same.low or 0.0, 1.0 if same.high is None else same.high
    by_chance = float(np.mean(1 / (options_I[both_wrong_I] - 1)))
    if result == Guesses.UNKNOWN and high - CORRECTION_MARGIN <= by_chance <= low + CORRECTION_MARGIN:
        result = Guesses.INDEPENDENT
    elif low > by_chance:
        result = Guesses.ALIKE
    elif high < by_chance:
        result = Guesses.UNLIKE
    return Guessing(result, both_wrong, same, by_chance)


def lost_beyond_chance(right_I: Indices, base_I: Indices, tuned_I: Indices, options_I: Indices) -> float | None:
    """The share of items that the tuned model lost for another reason than guessing; None where guesses are not sure.

    Args:
        right_I, base_I, tuned_I: the right option and each model's, int64 [I]; options_I: how many there are.

    Raises:
        ValueError: no items, or arrays of different lengths.
    """
    if not len(right_I) or len({of.shape for of in (right_I, base_I, tuned_I, options_I)}) != 1:
        raise ValueError("need one answer of each model, the right one and the number of options for every item")
    if guessing(right_I, base_I, tuned_I, options_I).guesses != Guesses.INDEPENDENT:
        return None
    base_right_I, tuned_right_I = base_I == right_I, tuned_I == right_I
    chance = chance_changes(float(base_right_I.mean()), float(tuned_right_I.mean()), options_I)
    return max(float((base_right_I & ~tuned_right_I).mean()) - chance, 0.0)
