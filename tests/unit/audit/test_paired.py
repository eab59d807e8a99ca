"""Paired answers: published check values, cases worked by hand, and coverage."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta

from keeptune.audit.paired import chance_changes, compare, difference
from keeptune.stats import Interval, mcnemar


def answers(*options: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(options, dtype=np.int64)


def ends(interval: Interval) -> tuple[Any, ...]:
    return interval.value, interval.low, interval.high


def test_published_check_values() -> None:
    change = difference(45, 20, 500)
    assert ends(change) == pytest.approx((-0.050, -0.0813, -0.0187), abs=5e-5)
    assert mcnemar(45, 20) == pytest.approx(0.00263, abs=5e-6)


def test_the_paired_interval_covers_the_truth_at_its_level() -> None:
    generator = np.random.default_rng(0)
    lost_gained_same = generator.multinomial(200, [0.10, 0.05, 0.85], size=1000)
    covered = 0
    for lost, gained, _ in lost_gained_same.tolist():
        _, low, high = ends(difference(lost, gained, 200))
        covered += low <= -0.05 <= high
    assert 0.93 <= covered / 1000 <= 0.97


@pytest.mark.parametrize("items", [1, 20, 100])
def test_no_change_is_not_surely_none(items: int) -> None:
    # Clopper–Pearson's upper end for none of so many, as a quantile of the beta distribution.
    bound = float(beta.ppf(0.975, 1, items))
    assert ends(difference(0, 0, items)) == pytest.approx((0.0, -bound, bound))


def test_chance_by_hand() -> None:
    # Four options, 40 % and 20 % right: a fifth of the items are lucky guesses, of which 80 % are wrong afterwards.
    assert chance_changes(0.4, 0.2, answers(4, 4)) == pytest.approx(0.2 * 0.8)
    assert chance_changes(0.4, 0.2, answers(2, 4)) == pytest.approx(0.6 * 0.8 * (1 + 1 / 3) / 2)
    assert chance_changes(1.0, 0.2, answers(4)) == 0.0


def test_guessers_show_no_forgetting_beyond_chance() -> None:
    generator = np.random.default_rng(1)
    right, base, tuned = generator.integers(0, 4, (3, 200_000))
    result = compare(right, base, tuned, np.full(200_000, 4))
    assert result["forgetting"]["raw"] == pytest.approx(3 / 16, abs=0.005)
    assert result["forgetting"]["chance"] == pytest.approx(result["forgetting"]["raw"], abs=0.005)
    assert result["backward_transfer"]["beyond_chance"] < 0.005


def test_knowers_who_forget_are_counted_beyond_chance() -> None:
    # Half known, a third of that forgotten (→ guessed). Lucky guesses are wrong afterwards in 3 of 4 cases, while the
    # published correction takes the average item, wrong in 2 of 4: it leaves 1/32 of chance in.
    generator = np.random.default_rng(2)
    right, first, second = generator.integers(0, 4, (3, 300_000))
    known = np.arange(300_000) % 2 == 0
    kept = known & (np.arange(300_000) % 3 != 0)
    result = compare(right, np.where(known, right, first), np.where(kept, right, second), np.full(300_000, 4))
    forgotten = (1 / 6) * (3 / 4)
    assert result["forgetting"]["raw"] == pytest.approx(forgotten + 0.5 * (1 / 4) * (3 / 4), abs=0.005)
    assert result["forgetting"]["beyond_chance"] == pytest.approx(forgotten + 1 / 32, abs=0.005)


def test_a_comparison_by_hand() -> None:
    right = answers(0, 1, 2, 3, 0, 1, 2, 3)
    base_ = answers(0, 1, 2, 3, 1, 0, 0, 3)
    tuned = answers(0, 1, 0, 1, 0, 0, 1, 3)
    result = compare(right, base_, tuned, np.full(8, 5))
    assert (result["items"], result["right_to_wrong"], result["wrong_to_right"]) == (8, 2, 1)
    assert result["accuracy_base"]["value"] == 5 / 8
    assert result["accuracy_tuned"]["value"] == 4 / 8
    assert result["change"]["value"] == -1 / 8
    assert result["change"]["high"] == pytest.approx(-1 / 8 + 1.959964 * math.sqrt(3 - 1 / 8) / 8, rel=1e-6)
    assert result["mcnemar_p"] == 1.0
    # Both wrong in items 6 and 7, with the same wrong option in item 6 alone.
    assert result["agreement"]["value"] == 4 / 8
    chance = (3 / 8) / 4 * (4 / 8)
    assert result["forgetting"] == pytest.approx({"raw": 2 / 8, "chance": chance, "beyond_chance": 2 / 8 - chance})
    assert result["backward_transfer"]["beyond_chance"] == pytest.approx(1 / 8 - chance)


def test_the_same_answers_change_nothing() -> None:
    result = compare(answers(0, 1, 2), answers(0, 0, 0), answers(0, 0, 0), answers(3, 3, 3))
    assert result["change"] == difference(0, 0, 3).ends()
    assert result["mcnemar_p"] == 1.0
    assert result["agreement"]["value"] == 1.0
    assert result["agreement"]["low"] < 0.5
    assert result["forgetting"]["beyond_chance"] == 0.0


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
        compare(answers(0, 1), answers(0), answers(0, 1), answers(4, 4))
    with pytest.raises(ValueError, match="every item"):
        compare(answers(), answers(), answers(), answers())
