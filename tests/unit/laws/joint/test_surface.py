"""The solver's coordinates: the Jacobian against differences, and the same losses as the paper's parameters give."""

from __future__ import annotations

import numpy as np
import pytest

from keeptune.laws.joint.surface import NAMES, READABLE, Surface, readable, readable_jacobian
from tests.helpers.laws import readings


@pytest.fixture
def surface() -> Surface:
    runs = readings()
    return Surface.of(runs.P, runs.N)


def test_the_jacobian_is_that_of_central_differences(surface: Surface) -> None:
    runs = readings()
    for theta in surface.starts(runs.L_ft, runs.L_f):
        theta = theta + 0.05 * np.arange(len(NAMES)) / len(NAMES)
        steps = 1e-6 * np.eye(len(NAMES))
        differences = [(surface.losses(theta + step) - surface.losses(theta - step)) / 2e-6 for step in steps]
        np.testing.assert_allclose(surface.jacobian(theta), np.stack(differences, axis=1), atol=1e-8)


def test_the_papers_parameters_give_the_same_losses(surface: Surface) -> None:
    runs = readings()
    for theta in surface.starts(runs.L_ft, runs.L_f):
        said = surface.law(theta, 1.7).predict(P=runs.P, N=runs.N)
        np.testing.assert_allclose(surface.losses(theta), np.concatenate([said.L_ft, said.L_f]), rtol=1e-11)


def test_starts_lie_inside_the_bounds(surface: Surface) -> None:
    runs = readings()
    low, high = surface.bounds(runs.L_ft, runs.L_f)
    for theta in surface.starts(runs.L_ft, runs.L_f):
        assert np.all((low <= theta) & (theta <= high))


def test_slopes_are_those_of_the_law_in_the_middle_of_the_readings(surface: Surface) -> None:
    runs = readings()
    theta = surface.starts(runs.L_ft, runs.L_f)[4] + 0.1 * np.arange(len(NAMES)) / len(NAMES)
    shown = dict(zip(READABLE, np.exp(readable(theta[None])[0]).tolist(), strict=True))
    law = surface.law(theta, 1.7)
    P, N, apart = np.exp(surface.mean_log_P), np.exp(surface.mean_log_N), 1e-4

    def changing(side: int, P: float, N: float) -> float:
        loss = float(law.predict(P=P, N=N)[side])
        return loss - theta[NAMES.index("s_ft")] if side == 0 else theta[NAMES.index("t_f")] - loss

    for side, name in enumerate(("ft", "f")):
        by_P = np.log(changing(side, P * np.exp(apart), N) / changing(side, P * np.exp(-apart), N)) / (2 * apart)
        by_N = np.log(changing(side, P, N * np.exp(apart)) / changing(side, P, N * np.exp(-apart))) / (2 * apart)
        assert shown[f"slope_P_{name}"] == pytest.approx(-by_P, rel=1e-5)
        assert shown[f"slope_N_{name}"] == pytest.approx(-by_N, rel=1e-5)
        assert shown[f"alpha_{name}"] == pytest.approx(getattr(law, f"alpha_{name}"))
        assert shown[f"beta_{name}"] == pytest.approx(getattr(law, f"beta_{name}"))
    assert shown["rho"] == pytest.approx(law.rho)
    steps = 1e-6 * np.eye(len(NAMES))
    differences = [(readable((theta + step)[None]) - readable((theta - step)[None]))[0] / 2e-6 for step in steps]
    np.testing.assert_allclose(readable_jacobian(theta), np.stack(differences, axis=1), atol=1e-8)
