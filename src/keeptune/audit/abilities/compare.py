"""What two models' passes of the same items say of an ability. Pure functions of passes and answers.

Shapes: I items.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from keeptune.audit.abilities.item import Item
from keeptune.audit.paired import difference
from keeptune.stats import Interval, mcnemar, wilson

SIGNIFICANT = 0.05


class Verdict(StrEnum):
    """What became of an ability."""

    LOST = "lost"
    GAINED = "gained"
    NO_CHANGE = "no change shown"
    CANNOT = "the base cannot do this"
    TOO_FEW = "not enough evidence"
    NOT_APPLICABLE = "not applicable"


RULE = (
    f"{Verdict.LOST}, {Verdict.GAINED}: p of the exact McNemar test below {SIGNIFICANT}. {Verdict.CANNOT}: the base "
    f"passes no more items than a model that has not read the request (one-sided binomial test at {SIGNIFICANT}), so "
    f"that nothing can be lost; it does not count as kept. {Verdict.TOO_FEW}: the base passes so few items that "
    f"losing all of them would not be significant. {Verdict.NO_CHANGE}: otherwise; the interval of the change says how "
    "large a change may have gone unseen."
)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Passes of the items of one kind."""

    kind: str
    items: int
    base: int
    tuned: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An ability of two models."""

    items: int
    base: Interval
    """Share of items passed, with Wilson's interval; so is `tuned`."""
    tuned: Interval
    change: Interval
    """`tuned` − `base`, paired by item."""
    lost: int
    """Items that only the base passes."""
    gained: int
    mcnemar_p: float
    chance: float
    """Share of items that a model would pass that has not read the request."""
    verdict: Verdict
    kinds: tuple[Kind, ...]


def compare(kinds: Sequence[str], base: Sequence[bool], tuned: Sequence[bool], chance: float) -> Comparison:
    """Two models' passes of the same items, [I] each.

    Raises:
        ValueError: no items, or lengths that differ.
    """
    items = len(kinds)
    moves = Counter(zip(base, tuned, strict=True))
    lost, gained = moves[True, False], moves[False, True]
    if moves.total() != items:
        raise ValueError(f"{items} kinds for {moves.total()} items")
    return Comparison(
        items=items,
        base=wilson(sum(base), items),
        tuned=wilson(sum(tuned), items),
        change=difference(lost, gained, items),
        lost=lost,
        gained=gained,
        mcnemar_p=mcnemar(lost, gained),
        chance=chance,
        verdict=verdict(items, sum(base), lost, gained, chance),
        kinds=tuple(
            Kind(
                kind=kind,
                items=list(kinds).count(kind),
                base=sum(passed for passed, of in zip(base, kinds, strict=True) if of == kind),
                tuned=sum(passed for passed, of in zip(tuned, kinds, strict=True) if of == kind),
            )
            for kind in dict.fromkeys(kinds)
        ),
    )


def verdict(items: int, base: int, lost: int, gained: int, chance: float) -> Verdict:
    """`RULE`, where the base passes `base` of the items."""
    significant = mcnemar(lost, gained) < SIGNIFICANT
    if significant and gained > lost:
        return Verdict.GAINED
    if not beats_chance(base, items, chance):
        return Verdict.CANNOT
    if significant:
        return Verdict.LOST
    return Verdict.TOO_FEW if mcnemar(base, 0) >= SIGNIFICANT else Verdict.NO_CHANGE


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
