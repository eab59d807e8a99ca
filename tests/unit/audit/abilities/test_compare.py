"""Whether a base has an ability to lose, against counts by hand."""

from __future__ import annotations

import pytest
from scipy.stats import binom

from keeptune.audit.abilities.compare import Standing, accident, beats_chance, standing
from keeptune.audit.abilities.item import Item


@pytest.mark.parametrize(
    ("base", "lost", "gained", "chance", "expected"),
    [
        (30, 0, 0, 0.0, Standing.ABLE),
        (30, 6, 0, 0.0, Standing.ABLE),
        (30, 30, 0, 0.0, Standing.ABLE),
        (0, 0, 0, 0.0, Standing.CANNOT),
        (0, 0, 5, 0.0, Standing.CANNOT),
        (0, 0, 6, 0.0, Standing.ABLE),
        (1, 1, 0, 0.0, Standing.TOO_FEW),
        (5, 5, 0, 0.0, Standing.TOO_FEW),
        (5, 5, 6, 0.0, Standing.TOO_FEW),
        (6, 0, 0, 0.0, Standing.ABLE),
        (10, 10, 0, 0.25, Standing.CANNOT),
        (15, 0, 0, 0.25, Standing.CANNOT),
        (15, 0, 8, 0.25, Standing.ABLE),
        (16, 0, 0, 0.25, Standing.ABLE),
        (40, 0, 0, 0.9, Standing.ABLE),
        (36, 0, 0, 0.9, Standing.CANNOT),
    ],
)
def test_standings(base: int, lost: int, gained: int, chance: float, expected: Standing) -> None:
    before = [True] * base + [False] * (40 - base)
    after = [False] * lost + [True] * (base + gained - lost) + [False] * (40 - base - gained)
    assert standing(before, after, chance) == expected


def test_chance_is_beaten_at_five_per_cent() -> None:
    for chance in (0.05, 0.25, 0.5):
        for passed in range(41):
            assert beats_chance(passed, 40, chance) == (passed > 0 and binom.sf(passed - 1, 40, chance) < 0.05)
    assert not beats_chance(0, 40, 0.0) and beats_chance(1, 40, 0.0)


def test_accidents_are_passes_by_answers_to_other_kinds() -> None:
    def item(kind: str, word: str) -> Item:
        return Item(name=word, kind=kind, prompt="", check=lambda text: word in text)

    items = [item("a", "x"), item("a", "y"), item("b", "z")]
    # x and y are looked for in the third answer alone, z in the first two.
    assert accident(items, ["xyz", "z", "x"]) == pytest.approx((1 + 0 + 1) / 3)
    assert accident(items[:2], ["x", "y"]) == 0.0
