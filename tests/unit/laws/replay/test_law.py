"""The replay law: its formula and limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from keeptune.errors import ConfigError
from tests.helpers.replay_laws import JOINT, LAW

PLACE = {"P": 1e6, "N": np.array([20.0, 100.0])}


def test_the_law_written_out() -> None:
    q = 1 / (1 + (8000 / 3000) ** 0.7)
    N = PLACE["N"]
    slower = q + (1 - q) * (1 + 1 / 0.2) ** 0.15
    L_ft = 1.3 + (5 * slower / N) ** 0.6
    L_f = 1.2 + ((3.2 - 1.3 - (3 / N) ** 0.5) - 1.2) * (q + (1 - q) * (1 + 1 / 0.2) ** -0.8)
    said = LAW.predict(**PLACE, lambda_=1.0, tokens=8e3)
    np.testing.assert_allclose(said.L_ft, L_ft, rtol=1e-12)
    np.testing.assert_allclose(said.L_f, L_f, rtol=1e-12)


def test_its_limits_are_the_joint_law_the_effect_of_the_weight_alone_and_the_pools_floor() -> None:
    plain = JOINT.predict(**PLACE)
    for lambda_, tokens in ((0.0, 8e3), (0.0, np.inf), (3.0, 0.0)):
        np.testing.assert_allclose(LAW.predict(**PLACE, lambda_=lambda_, tokens=tokens), plain, rtol=1e-12)
    without = dataclasses.replace(LAW, hold=dataclasses.replace(LAW.hold, tokens_0=0.0))
    np.testing.assert_allclose(LAW.predict(**PLACE, lambda_=2.0), without.predict(**PLACE, lambda_=2.0, tokens=10.0))
    held = LAW.predict(**PLACE, lambda_=1e30, tokens=3000.0)
    np.testing.assert_allclose(held.L_f - 1.2, 0.5 * (plain.L_f - 1.2))
    for name, where in (
        ("lambda", {"lambda_": -1.0}),
        ("lambda", {"lambda_": np.inf}),
        ("replay_tokens", {"lambda_": 1.0, "tokens": np.nan}),
    ):
        with pytest.raises(ConfigError, match=f"not defined at {name}"):
            LAW.predict(**PLACE, **where)
