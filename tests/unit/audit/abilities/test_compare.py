"""Verdicts on an ability from passes of the same items, against counts by hand."""

from __future__ import annotations

import pytest
from scipy.stats import binom

from keeptune.audit.abilities.compare import Verdict, accident, beats_chance, compare, verdict
from keeptune.audit.abilities.item import Item


def test_a_comparison_counts_what_it_says() -> None:
    base = [True] * 20 + [False] * 20
    tuned = [True] * 8 + [False] * 12 + [True] * 2 + [False] * 18
    found = compare(["a"] * 10 + ["b"] * 30, base, tuned, 0.1)
    assert (found.items, found.lost, found.gained) == (40, 12, 2)
    assert (found.base.value, found.tuned.value) == (0.5, 0.25)
    assert found.change.value == pytest.approx(-0.25) and (found.change.high or 0) < 0
    assert found.mcnemar_p == pytest.approx(2 * binom.cdf(2, 14, 0.5))
    assert found.verdict == Verdict.LOST
    assert [(kind.kind, kind.items, kind.base, kind.tuned) for kind in found.kinds] == [
        ("a", 10, 10, 8),
        ("b", 30, 10, 2),
    ]


@pytest.mark.parametrize(
    ("base", "lost", "gained", "chance", "expected"),
    [
        (30, 0, 0, 0.0, Verdict.NO_CHANGE),
        (30, 6, 0, 0.0, Verdict.LOST),
        (30, 5, 0, 0.0, Verdict.NO_CHANGE),
        (30, 8, 8, 0.0, Verdict.NO_CHANGE),
        (30, 1, 9, 0.0, Verdict.GAINED),
        (0, 0, 0, 0.0, Verdict.CANNOT),
        (0, 0, 5, 0.0, Verdict.CANNOT),
        (0, 0, 6, 0.0, Verdict.GAINED),
        (1, 1, 0, 0.0, Verdict.TOO_FEW),
        (5, 5, 0, 0.0, Verdict.TOO_FEW),
        (6, 0, 0, 0.0, Verdict.NO_CHANGE),
        (6, 6, 0, 0.0, Verdict.LOST),
        (10, 10, 0, 0.25, Verdict.CANNOT),
        (15, 0, 0, 0.25, Verdict.CANNOT),
        (16, 0, 0, 0.25, Verdict.NO_CHANGE),
        (40, 0, 0, 0.9, Verdict.NO_CHANGE),
    ],
)
def test_verdicts(base: int, lost: int, gained: int, chance: float, expected: Verdict) -> None:
    assert verdict(40, base, lost, gained, chance) == expected


def test_chance_is_beaten_at_five_per_cent() -> None:
    for chance in (0.05, 0.25, 0.5):
        for passed in range(41):
            assert beats_chance(passed, 40, chance) == (passed > 0 and binom.sf(passed - 1, 40, chance) < 0.05)
    assert not beats_chance(0, 40, 0.0) and beats_chance(1, 40, 0.0)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError):
        compare(["a"], [True], [True, False], 0.0)
    with pytest.raises(ValueError, match="2 kinds for 1"):
        compare(["a", "a"], [True], [True], 0.0)
    with pytest.raises(ValueError):
        compare([], [], [], 0.0)


def test_accidents_are_passes_by_answers_to_other_kinds() -> None:
    def item(kind: str, word: str) -> Item:
        return Item(name=word, kind=kind, prompt="", check=lambda text: word in text)

    items = [item("a", "x"), item("a", "y"), item("b", "z")]
    # x and y are looked for in the third answer alone, z in the first two.
    assert accident(items, ["xyz", "z", "x"]) == pytest.approx((1 + 0 + 1) / 3)
    assert accident(items[:2], ["x", "y"]) == 0.0
