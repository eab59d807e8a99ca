"""What a base can do at all, so that it could be lost. Pure functions of passes and answers."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from keeptune.audit.abilities.item import Item
from keeptune.stats import LEVEL, mcnemar

SIGNIFICANT = 1 - LEVEL


class Standing(StrEnum):
    """Whether a base has an ability to lose."""

    ABLE = "able"
    CANNOT = "the base cannot do this"
    TOO_FEW = "the base passes too few items for a loss to show"
    NOT_APPLICABLE = "not applicable"


RULE = (
    f"{Standing.CANNOT}: the base passes no more items than a model would that has not read the request (one-sided "
    f"binomial test at {SIGNIFICANT:g}), so that nothing can be lost; this does not count as kept. "
    f"{Standing.TOO_FEW}: losing all of them would not be significant by McNemar's exact test. A gain counts all the "
    "same."
)


def standing(base: Sequence[bool], tuned: Sequence[bool], chance: float) -> Standing:
    """`RULE` for two models' passes of the same items.

    Args:
        chance: the share of items that a model would pass that has not read the request.
    """
    passed = sum(base)
    lost = sum(was and not now for was, now in zip(base, tuned, strict=True))
    gained = sum(now and not was for was, now in zip(base, tuned, strict=True))
    if gained > lost and mcnemar(lost, gained) < SIGNIFICANT:
        return Standing.ABLE
    if not beats_chance(passed, len(base), chance):
        return Standing.CANNOT
    return Standing.TOO_FEW if mcnemar(passed, 0) >= SIGNIFICANT else Standing.ABLE


def beats_chance(passed: int, items: int, chance: float) -> bool:
    """Whether so many passes are too many for chance.

    Items may differ in their chance; with their mean for all of them the test errs to the safe side (Hoeffding 1956).
    """
    from scipy.stats import binomtest  # noqa: PLC0415 - slow to import

    return passed > 0 and float(binomtest(passed, items, chance, alternative="greater").pvalue) < SIGNIFICANT


def accident(items: Sequence[Item], answers: Sequence[str]) -> float:
    """How often an item's check passes an answer to an item of another kind: a pass that nobody asked for.

    It is 0 where all items are of one kind.
    """
    rates = []
    for item in items:
        others = [text for other, text in zip(items, answers, strict=True) if other.kind != item.kind]
        if others:
            rates.append(sum(map(item.check, others)) / len(others))
    return sum(rates) / len(rates) if rates else 0.0
