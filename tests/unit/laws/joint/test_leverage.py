"""What runs tell a fit: both corrections against the matrices that define them, written out."""

from __future__ import annotations

import numpy as np
import pytest

from keeptune.laws.joint.leverage import Leverage

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
