"""Paired answers: published check values, cases worked by hand, and coverage."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from keeptune.audit.paired import Guesses, Guessing, chance_changes, difference, guessing, lost_beyond_chance
from keeptune.stats import Interval, mcnemar


def answers(*options: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(options, dtype=np.int64)


def ends(interval: Interval) -> tuple[Any, ...]:
    return interval.value, interval.low, interval.high


def test_published_check_values() -> None:
    # Wald's interval for 45 lost and 20 gained of 500 is −.050 [−.0813, −.0187]; one more of each of 502 is near it.
    low, high = -25 / 502 - 1.959964 * half_width(67, -25, 502), -25 / 502 + 1.959964 * half_width(67, -25, 502)
    assert ends(difference(45, 20, 500)) == pytest.approx((-0.050, low, high), abs=1e-6)
    assert (low, high) == pytest.approx((-0.0813, -0.0187), abs=7e-4)
    assert mcnemar(45, 20) == pytest.approx(0.00263, abs=5e-6)


def half_width(changed: int, moved: int, items: int) -> float:
    return math.sqrt(changed / items - (moved / items) ** 2) / math.sqrt(items)


@pytest.mark.parametrize("items", [12, 20, 50, 200])
@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.02), (0.1, 0.1), (0.2, 0.05), (0.35, 0.02), (0.3, 0.3)])
def test_the_paired_interval_covers_the_truth_at_its_level(items: int, lost: float, gained: float) -> None:
    drawn = np.random.default_rng(0).multinomial(items, [lost, gained, 1 - lost - gained], size=2000)
    counts, times = np.unique(drawn[:, :2], axis=0, return_counts=True)
    covered = 0
    for (lost_, gained_), often in zip(counts.tolist(), times, strict=True):
        _, low, high = ends(difference(lost_, gained_, items))
        assert -1 <= low <= high <= 1
        covered += often * (low <= gained - lost <= high)
    assert covered / 2000 >= 0.93


@pytest.mark.parametrize("items", [1, 20, 100])
def test_no_change_is_not_surely_none(items: int) -> None:
    half = min(1.959964 * half_width(2, 0, items + 2), 1.0)
    assert ends(difference(0, 0, items)) == pytest.approx((0.0, -half, half), abs=1e-6)


@pytest.mark.parametrize("items", [1, 12, 200])
def test_a_change_stays_within_its_range(items: int) -> None:
    for lost, gained in ((items, 0), (0, items)):
        value, low, high = ends(difference(lost, gained, items))
        assert -1 <= low <= value <= high <= 1


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (6, 0), (45, 20), (3, 3)])
def test_mcnemar_is_scipys_binomial_test(lost: int, gained: int) -> None:
    expected = binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert mcnemar(lost, gained) == pytest.approx(expected)


def test_chance_by_hand() -> None:
    # Four options, 40 % and 20 % right: a fifth of the items are lucky guesses, of which 80 % are wrong afterwards.
    assert chance_changes(0.4, 0.2, answers(4, 4)) == pytest.approx(0.2 * 0.8)
    assert chance_changes(0.4, 0.2, answers(2, 4)) == pytest.approx(0.6 * 0.8 * (1 + 1 / 3) / 2)
    assert chance_changes(1.0, 0.2, answers(4)) == 0.0


def test_guessers_show_no_forgetting_beyond_chance() -> None:
    generator = np.random.default_rng(1)
    right, base, tuned = generator.integers(0, 4, (3, 200_000))
    options = np.full(200_000, 4)
    result = guessing(right, base, tuned, options)
    assert result.guesses == Guesses.INDEPENDENT
    assert result.by_chance == pytest.approx(1 / 3)
    assert ((base == right) & (tuned != right)).mean() == pytest.approx(3 / 16, abs=0.005)
    assert lost_beyond_chance(right, base, tuned, options) == pytest.approx(0.0, abs=0.005)
    assert lost_beyond_chance(right, tuned, base, options) == pytest.approx(0.0, abs=0.005)


def test_knowers_who_forget_are_counted_beyond_chance() -> None:
    # Half known, a third of that forgotten (→ guessed). Lucky guesses are wrong afterwards in 3 of 4 cases, while the
    # published correction takes the average item, wrong in 2 of 4: it leaves 1/32 of chance in.
    generator = np.random.default_rng(2)
    right, first, second = generator.integers(0, 4, (3, 300_000))
    known = np.arange(300_000) % 2 == 0
    kept = known & (np.arange(300_000) % 3 != 0)
    base, tuned = np.where(known, right, first), np.where(kept, right, second)
    forgotten = (1 / 6) * (3 / 4)
    assert ((base == right) & (tuned != right)).mean() == pytest.approx(forgotten + 0.5 / 4 * (3 / 4), abs=0.005)
    beyond = lost_beyond_chance(right, base, tuned, np.full(300_000, 4))
    assert beyond == pytest.approx(forgotten + 1 / 32, abs=0.005)


def test_two_items_that_both_answer_wrongly_say_nothing_of_guesses() -> None:
    right = answers(0, 1, 2, 3, 0, 1, 2, 3)
    base, tuned = answers(0, 1, 2, 3, 1, 0, 0, 3), answers(0, 1, 0, 1, 0, 0, 1, 3)
    # Both wrong in items 6 and 7, with the same wrong option in item 6 alone.
    result = guessing(right, base, tuned, np.full(8, 5))
    assert result[:2] == (Guesses.UNKNOWN, 2)
    assert result.by_chance == 1 / 4
    assert result.same_wrong_option is not None
    assert result.same_wrong_option.value == 1 / 2
    assert lost_beyond_chance(right, base, tuned, np.full(8, 5)) is None


def test_the_same_answers_change_nothing() -> None:
    assert lost_beyond_chance(answers(0, 1, 2), answers(0, 0, 0), answers(0, 0, 0), answers(3, 3, 3)) is None


def likeness(options: int, shared: float, items: int = 4000, known: float = 0.4) -> Guessing:
    """Two models that know the same items, and share some of their guesses."""
    generator = np.random.default_rng(options)
    right, base, other = generator.integers(0, options, (3, items))
    knows = generator.random(items) < known
    tuned = np.where(generator.random(items) < shared, base, other)
    return guessing(right, np.where(knows, right, base), np.where(knows, right, tuned), np.full(items, options))


@pytest.mark.parametrize("options", [3, 4, 5, 10])
@pytest.mark.parametrize(
    ("shared", "expected"),
    [(0.0, Guesses.INDEPENDENT), (0.3, Guesses.ALIKE), (0.9, Guesses.ALIKE), (1.0, Guesses.ALIKE)],
)
def test_guesses_that_two_models_share_are_found(options: int, shared: float, expected: Guesses) -> None:
    result = likeness(options, shared)
    assert result.guesses == expected
    assert result.by_chance == pytest.approx(1 / (options - 1))


def test_two_options_leave_nothing_to_test_but_the_changes() -> None:
    assert likeness(2, 0.0).guesses == Guesses.UNKNOWN
    assert likeness(2, 1.0).guesses == Guesses.ALIKE
    assert likeness(2, 1.0).same_wrong_option is None


def test_few_items_are_not_called_independent() -> None:
    assert likeness(4, 0.0, items=60).guesses == Guesses.UNKNOWN
    assert likeness(4, 0.0, items=4000, known=0.999).guesses == Guesses.UNKNOWN


def test_models_that_avoid_each_others_guesses_are_not_independent() -> None:
    right, base = np.random.default_rng(3).integers(0, 4, (2, 2000))
    result = guessing(right, base, (base + 1) % 4, np.full(2000, 4))
    assert result.guesses == Guesses.UNLIKE
    assert result.same_wrong_option is not None
    assert result.same_wrong_option.value == 0.0


def test_high_agreement_reports_raw_losses_and_no_correction() -> None:
    # The case of the issue: of 200 items 7 are lost, agreement is high, and "chance" would be .165: the loss printed 0.
    right = np.zeros(200, dtype=np.int64)
    base = np.where(np.arange(200) < 60, 0, 1 + np.arange(200) % 3)
    tuned = base.copy()
    tuned[:7] = 1
    tuned[100:104] = 0
    assert chance_changes(60 / 200, 57 / 200, np.full(200, 4)) == pytest.approx(0.165, abs=0.003)
    assert ((base == right) & (tuned != right)).sum() == 7
    assert lost_beyond_chance(right, base, tuned, np.full(200, 4)) is None
    assert guessing(right, base, tuned, np.full(200, 4)).guesses == Guesses.ALIKE


def test_what_cannot_be_counted_is_refused() -> None:
    for lost, gained, items in ((3, 3, 5), (-1, 0, 5), (0, 0, 0)):
        with pytest.raises(ValueError, match="do not fit"):
            difference(lost, gained, items)
    with pytest.raises(ValueError, match="between 0 and 1"):
        chance_changes(1.1, 0.5, answers(4))
    for options in (answers(4, 1), answers()):
        with pytest.raises(ValueError, match="two options"):
            chance_changes(0.5, 0.5, options)
    with pytest.raises(ValueError, match="every item"):
        lost_beyond_chance(answers(0, 1), answers(0), answers(0, 1), answers(4, 4))
    with pytest.raises(ValueError, match="every item"):
        lost_beyond_chance(answers(), answers(), answers(), answers())
