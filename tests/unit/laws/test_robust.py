"""Robust least squares and intervals from replicates, against cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from keeptune.errors import ConfigError
from keeptune.laws.robust import Leverage, band, check_coverage, ends, r_squared, replicates, scale_of, solve, thinned


def test_outliers_do_not_move_the_solution_or_the_scale() -> None:
    design = np.stack([np.linspace(0, 1, 50), np.ones(50)], axis=1)
    target = design @ np.array([2.0, -1.0])
    target[7] += 100.0
    found = solve(lambda theta: (design @ theta - target) / 0.01, lambda _: design / 0.01, np.zeros(2))
    assert found == pytest.approx([2.0, -1.0], abs=1e-3)
    errors = np.random.default_rng(0).normal(0, 0.3, 2000)
    assert scale_of(np.append(errors, 1e6), errors) == pytest.approx(0.3, rel=0.1)
    assert scale_of(np.zeros(5), np.array([1.0, 2.0, 3.0, 4.0, 5.0])) > 0


def test_replicates_flip_whole_runs_with_mean_0_and_variance_1() -> None:
    run = np.repeat([3, 7, 9], 4)
    drawn = replicates(run, 4000, 0, lambda factors: factors)
    assert drawn.shape == (4000, 12)
    assert np.array_equal(drawn[:, :4], np.repeat(drawn[:, :1], 4, axis=1)), "one factor a run"
    assert len(set(np.abs(drawn[:, 0]).round(6).tolist())) == 3, "six values in pairs of signs"
    assert drawn[:, 0].mean() == pytest.approx(0, abs=0.05)
    assert drawn[:, 0].var() == pytest.approx(1, abs=0.05)
    assert replicates(np.zeros(5, dtype=np.int64), 10, 0, lambda factors: factors).size == 0


def test_few_degrees_of_freedom_widen_the_ends() -> None:
    draws = np.random.default_rng(1).normal(size=(4000, 2))
    low, high = ends(np.zeros(2), draws, 0.9, np.array([1e6, 3.0]))
    assert high[0] == pytest.approx(stats.norm.ppf(0.95), abs=0.1)
    assert high[1] / high[0] == pytest.approx(stats.t.ppf(0.95, 3) / stats.norm.ppf(0.95), rel=0.05)
    assert np.all(low < 0)


def test_a_new_reading_adds_its_noise_in_squares() -> None:
    value, freedom = np.array([1.0]), np.array([1e6])
    draws = [value + step for step in np.linspace(-1, 1, 201)]
    residuals = np.linspace(-2, 2, 401)
    whole = band(value, draws, residuals, 0.5, freedom)
    # The i-th of K sorted residuals stands for the quantile i/(K + 1): .75 is between the 301st and the 302nd.
    half, noise = float(whole.high[0] - 1.0), residuals[300] + 0.5 * (residuals[301] - residuals[300])
    assert whole.reading_high[0] - 1.0 == pytest.approx(np.hypot(half, noise), rel=1e-3)
    assert band(value, [], np.zeros(3), 0.5, freedom).low is None
    assert band(value, draws, np.zeros(3), None, freedom).low is None


def test_the_rest() -> None:
    observed = np.array([1.0, 2.0, 3.0])
    assert r_squared(observed, observed) == 1.0
    assert r_squared(observed, np.full(3, 2.0)) == 0.0
    assert r_squared(np.full(3, 2.0), np.full(3, 2.0)) == 1.0
    assert r_squared(np.full(3, 2.0), observed) == 0.0
    assert thinned(10, 4).tolist() == [0, 3, 6, 9]
    assert thinned(3, 10).tolist() == [0, 1, 2]
    for wrong in (0.0, 1.0, 90.0):
        with pytest.raises(ConfigError, match="coverage"):
            check_coverage(wrong)


RUN = np.repeat([3, 5, 8, 9], [4, 2, 6, 3])


@pytest.fixture
def jacobian() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((len(RUN), 3)) * [1.0, 1e3, 1e-3]


def power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    values, directions = np.linalg.eigh(matrix)
    return directions @ np.diag(values**exponent) @ directions.T


def test_residuals_are_freed_by_each_runs_block_of_the_hat_matrix(jacobian: np.ndarray) -> None:
    rest = np.eye(len(RUN)) - jacobian @ np.linalg.pinv(jacobian)
    seen = np.random.default_rng(1).standard_normal(len(RUN))
    freed = Leverage.of(jacobian, RUN).corrected(rest @ seen, jacobian, RUN)
    for name in set(RUN.tolist()):
        own = np.equal(RUN, name)
        expected = power(rest[np.ix_(own, own)], -0.5) @ (rest @ seen)[own]
        np.testing.assert_allclose(freed[own], expected, rtol=1e-9)


def test_degrees_of_freedom_are_satterthwaites(jacobian: np.ndarray) -> None:
    rest = np.eye(len(RUN)) - jacobian @ np.linalg.pinv(jacobian)
    gradients = np.array([[1.0, 0.0, 0.0], [1.0, 2e3, -1e-3]])
    found = Leverage.of(jacobian, RUN).freedom(gradients)
    for gradient, freedom in zip(gradients, found, strict=True):
        columns = []
        for name in sorted(set(RUN.tolist())):
            own = np.equal(RUN, name)
            along = jacobian[own] @ np.linalg.inv(jacobian.T @ jacobian) @ gradient
            columns.append(rest[:, own] @ power(rest[np.ix_(own, own)], -0.5) @ along)
        values = np.linalg.eigvalsh(np.array(columns) @ np.array(columns).T)
        assert freedom == pytest.approx(values.sum() ** 2 / np.sum(values**2))


def test_alike_runs_give_a_mean_all_freedom_but_one_and_unlike_ones_less() -> None:
    ones = np.ones((60, 1))
    alike = Leverage.of(ones, np.arange(60) // 10)
    assert alike.freedom(np.ones((1, 1))) == pytest.approx(5)
    # Six runs that hold half of all readings, and one the other half.
    lopsided = Leverage.of(ones, np.maximum(np.arange(60) // 5 - 5, 0))
    assert 1 <= lopsided.freedom(np.ones((1, 1))) < 4


def test_what_one_run_alone_decides_has_no_residual_and_one_degree_of_freedom() -> None:
    design = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    run = np.array([0, 1, 2, 2])
    leverage = Leverage.of(design, run)
    freed = leverage.corrected(np.array([1.0, -1.0, 1.0, -1.0]), design, run)
    np.testing.assert_allclose(freed, [np.sqrt(2), -np.sqrt(2), 1, -1])
    assert leverage.freedom(np.eye(2)) == pytest.approx([1, 1])
