"""The score matrix: every measure on a matrix worked by hand, intervals against a plain bootstrap, coverage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keeptune.audit.continual.matrix import (
    Column,
    accuracy,
    backward_transfer,
    falls,
    forward_transfer,
    of_matrix,
    score_findings,
    summary_findings,
)
from keeptune.report.finding import Finding, select
from keeptune.report.measures import Verdict

HIGHER, LOWER, NO_CHANGE, NO_EVIDENCE, _ = Verdict

# Rows: base, after stage 1, 2, 3; columns: what stage 1, 2, 3 trained.
BY_HAND = np.array(
    [
        [0.10, 0.20, 0.30],
        [0.80, 0.25, 0.28],
        [0.60, 0.90, 0.40],
        [0.50, 0.70, 0.95],
    ]
)


def column(name: str, stage: int | None, score_LD: Any, floor: float = 0.0, weights: Any = None) -> Column:
    score_LD = np.asarray(score_LD, dtype=np.float64)
    weights_D = np.ones(score_LD.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    return Column(name=name, stage=stage, sums_LD=score_LD * weights_D, weights_D=weights_D, floor=floor)


def constant(name: str, stage: int | None, scores_L: Any, documents: int = 20) -> Column:
    return column(name, stage, np.repeat(np.asarray(scores_L)[:, None], documents, axis=1))


def cells(columns: list[Column]) -> list[Finding]:
    return list(score_findings(columns, "document"))


def summary(columns: list[Column]) -> dict[str, list[Finding]]:
    """By measure."""
    found = list(summary_findings(columns, "texts", "document"))
    return {name: select(found, measure=name) for name in ("acc", "bwt", "fwt", "stage_forgetting", "fall")}


def test_a_matrix_by_hand() -> None:
    assert accuracy(BY_HAND) == pytest.approx((0.50 + 0.70 + 0.95) / 3)
    assert backward_transfer(BY_HAND) == pytest.approx(((0.50 - 0.80) + (0.70 - 0.90)) / 2)
    assert forward_transfer(BY_HAND) == pytest.approx(((0.25 - 0.20) + (0.40 - 0.30)) / 2)
    np.testing.assert_allclose(falls(BY_HAND[:, 0]), [0.80 - 0.50, 0.60 - 0.50])


def test_many_matrices_at_once_are_each_alone() -> None:
    many = np.random.default_rng(0).normal(size=(5, 4, 3))
    for formula in (accuracy, backward_transfer, forward_transfer):
        np.testing.assert_allclose(formula(many), [formula(one) for one in many])


def test_an_interval_of_the_matrix_has_the_value_of_the_formula() -> None:
    generator = np.random.default_rng(7)
    columns = [column(f"c{stage}", stage, generator.normal(size=(4, 12 + stage))) for stage in (1, 2, 3)]
    score_LT = np.stack([one.scores_L() for one in columns], axis=1)
    for formula in (accuracy, backward_transfer, forward_transfer):
        found = of_matrix(columns, formula)
        assert found.value == pytest.approx(formula(score_LT))
        assert (found.low or 1) < found.value < (found.high or -1)
        assert found.documents == 13


def test_summary_by_hand() -> None:
    columns = [constant(f"c{stage}", stage, BY_HAND[:, stage - 1]) for stage in (1, 2, 3)]
    result = summary([*columns, constant("wiki", None, [0.7, 0.9, 0.8, 0.6])])
    assert result["acc"][0].value == pytest.approx(2.15 / 3)
    assert result["bwt"][0].value == pytest.approx(-0.25)
    assert result["bwt"][0].verdict == LOWER
    assert result["fwt"][0].value == pytest.approx(0.075)
    assert result["fwt"][0].verdict == HIGHER
    # The best earlier score counts, wherever it stands; the last column cannot have been forgotten yet.
    forgotten = result["stage_forgetting"]
    assert [one.subject for one in forgotten] == ["c1", "c2"]
    assert [one.value for one in forgotten] == pytest.approx([0.30, 0.20])
    assert [one.part for one in forgotten] == ["stage 1", "stage 2"]
    # Old knowledge falls from the base, not from its best.
    assert [(one.subject, one.value) for one in result["fall"]] == [("wiki", pytest.approx(0.1))]


def test_the_base_is_not_among_what_chaudhry_can_lose() -> None:
    first = constant("first", 1, [0.9, 0.5, 0.7, 0.6])
    others = [constant(f"c{stage}", stage, [0, 0, 0, 0]) for stage in (2, 3)]
    entry = summary([first, *others])["stage_forgetting"][0]
    assert entry.value == pytest.approx(0.7 - 0.6)
    assert entry.part == "stage 2"


def test_forgetting_is_negative_where_the_last_is_best() -> None:
    columns = [constant("a", 1, [0.1, 0.5, 0.8]), constant("b", 2, [0.1, 0.1, 0.9])]
    assert summary(columns)["stage_forgetting"][0].value == pytest.approx(-0.3)
    assert summary(columns)["stage_forgetting"][0].verdict == LOWER


def test_intervals_are_those_of_a_plain_paired_bootstrap() -> None:
    generator = np.random.default_rng(3)
    weights_D = generator.integers(50, 200, 30)
    score_LD = generator.normal(-3, 0.3, (3, 30)) + generator.normal(0, 1, 30)
    one = column("one", 1, score_LD, weights=weights_D)
    other = column("two", 2, score_LD[::-1])
    (cell,) = select(cells([one, other]), measure="score", subject="one", part="stage 2")
    (change,) = select(cells([one, other]), measure="score_change", subject="one", part="stage 2")
    (bwt,) = summary([one, other])["bwt"]
    means, changes = [], []
    for _ in range(4000):
        drawn = generator.integers(0, 30, 30)
        mean_L = (score_LD[:, drawn] * weights_D[drawn]).sum(axis=1) / weights_D[drawn].sum()
        means.append(mean_L[2])
        changes.append(mean_L[2] - mean_L[1])
    assert cell.value == pytest.approx(np.average(score_LD[2], weights=weights_D))
    assert [cell.low, cell.high] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.2 * (cell.high - cell.low))
    assert [bwt.low, bwt.high] == pytest.approx(np.quantile(changes, [0.025, 0.975]), abs=0.2 * (bwt.high - bwt.low))
    assert change.value == pytest.approx(np.average(score_LD[2] - score_LD[0], weights=weights_D))
    assert 0.5 < (change.high - change.low) / (bwt.high - bwt.low) < 2
    # What documents have in common leaves a difference: it is surer than either score.
    assert bwt.high - bwt.low < 0.5 * (cell.high - cell.low)


def test_columns_are_resampled_independently() -> None:
    # ACC of two like columns is a mean of two independent scores: narrower than either by √2.
    score_LD = np.random.default_rng(4).normal(size=(3, 40))
    one, two = column("one", 1, score_LD), column("two", 2, score_LD)
    (acc,), (score,) = summary([one, two])["acc"], select(cells([one]), measure="score", part="stage 2")
    assert (acc.high - acc.low) == pytest.approx((score.high - score.low) / 2**0.5, rel=0.1)


def test_forgetting_is_not_claimed_among_equal_stages() -> None:
    # Six equal stages: the luckiest of five beats the last in most draws, and a plain percentile would call it sure.
    generator = np.random.default_rng(5)
    claimed = 0
    for _ in range(100):
        score_LD = generator.normal(size=(7, 40))
        others = [constant(f"c{stage}", stage, np.zeros(7)) for stage in range(2, 7)]
        claimed += summary([column("one", 1, score_LD), *others])["stage_forgetting"][0].verdict is HIGHER
    assert claimed <= 0.06 * 100


def test_real_forgetting_is_claimed() -> None:
    score_LD = np.random.default_rng(6).normal(0, 0.1, (4, 40)) + np.array([0, 1, 0.6, 0.4])[:, None]
    others = [constant(f"c{stage}", stage, np.zeros(4)) for stage in (2, 3)]
    entry = summary([column("one", 1, score_LD), *others])["stage_forgetting"][0]
    assert entry.verdict is HIGHER
    assert (entry.low or 1) < 0.6 < (entry.high or 0)


def test_what_rounding_can_give_is_no_change() -> None:
    def columns(floor: float) -> list[Column]:
        return [column("a", 1, [[0.0] * 20, [0.5] * 20, [0.49] * 20], floor), constant("b", 2, [0.0, 0.0, 0.0])]

    assert summary(columns(0.001))["bwt"][0].verdict is LOWER
    assert summary(columns(0.02))["bwt"][0].verdict is NO_CHANGE
    assert summary(columns(0.02))["stage_forgetting"][0].verdict is NO_CHANGE


def test_too_little_evidence_is_said() -> None:
    few = [constant("a", 1, [0, 1, 0], documents=9), constant("b", 2, [0, 0, 1])]
    (bwt,) = summary(few)["bwt"]
    assert (bwt.verdict, bwt.n) == (NO_EVIDENCE, 9)
    lone = [constant("a", 1, [0, 1, 0], documents=1), constant("b", 2, [0, 0, 1], documents=1)]
    (lost,) = summary(lone)["stage_forgetting"]
    assert (lost.low, lost.verdict) == (None, NO_EVIDENCE)
    score, change = (select(cells(lone), measure=name, part="stage 1")[0] for name in ("score", "score_change"))
    assert (score.value, score.low, score.n, score.verdict) == (1.0, None, 1, None)
    assert (change.value, change.low, change.verdict) == (1.0, None, NO_EVIDENCE)


def test_one_stage_has_nothing_to_transfer() -> None:
    result = summary([constant("a", 1, [0.2, 0.9]), constant("old", None, [0.8, 0.5])])
    assert result["acc"][0].value == pytest.approx(0.9)
    assert (result["bwt"], result["fwt"], result["stage_forgetting"]) == ([], [], [])
    assert result["fall"][0].value == pytest.approx(0.3)
    assert summary([constant("old", None, [0.8, 0.5])])["acc"] == []
