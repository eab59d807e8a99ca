"""The replay law against simpler laws on held-out cells."""

from __future__ import annotations

import dataclasses

import pytest

from keeptune.errors import ConfigError
from keeptune.laws.replay.heldout import leave_cells_out
from keeptune.laws.replay.law import Hold
from tests.helpers.replay_laws import LAW, readings


def test_cells_left_out_tell_the_law_from_simpler_ones_where_pools_matter() -> None:
    found = leave_cells_out(readings(steps=4, weights=(0.2, 2.0)))
    assert len(found["cells"]) == 6
    assert found["mean"]["replay"]["L_f"] < 0.004
    for rival in ("no_tokens", "power", "constant", "none"):
        more, low, high = found["against"][rival]
        assert low <= more <= high
        assert low > 0
        assert found["mean"][rival]["L_f"] - found["mean"]["replay"]["L_f"] == pytest.approx(more)


def test_where_pools_do_not_matter_the_law_is_not_said_to_be_better() -> None:
    law = dataclasses.replace(LAW, hold=Hold(lambda_0=0.2, gamma=0.8, kappa=0.15, tokens_0=0.0, delta=1.0))
    found = leave_cells_out(readings(law=law, steps=4, weights=(0.2, 2.0)), ("replay", "no_tokens"))
    assert found["against"]["no_tokens"][0] == pytest.approx(0, abs=5e-4)


def test_two_cells_are_too_few() -> None:
    runs = readings()
    with pytest.raises(ConfigError, match="2 cells"):
        leave_cells_out(runs.where((runs.lambda_ == 0) | ((runs.lambda_ == 1) & (runs.tokens > 5e3))))
