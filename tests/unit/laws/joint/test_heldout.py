"""Errors on held-out readings: none for a law, and the rank that breaks it shows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from keeptune.errors import ConfigError
from keeptune.laws.forms import LLAMA_2_7B_PARAMETERS_PER_RANK
from keeptune.laws.joint.heldout import last_steps, leave_one_rank_out
from tests.helpers.laws import readings


def test_held_out_errors_are_nothing_for_a_law_and_show_the_rank_that_breaks_it() -> None:
    exact = readings(noise=0, seeds=1)
    assert all(miss["L_f"] < 1e-6 and miss["readings"] == 22 for miss in leave_one_rank_out(exact).values())
    last = last_steps(exact)
    assert (last["L_ft"] < 1e-6, last["L_f"] < 1e-6, last["readings"]) == (True, True, 6 * 7)
    odd = 64.0 * LLAMA_2_7B_PARAMETERS_PER_RANK
    moved = dataclasses.replace(exact, L_ft=np.where(np.equal(exact.P, odd), 1.1 * exact.L_ft, exact.L_ft))
    misses = leave_one_rank_out(moved)
    assert misses[odd]["L_ft"] == pytest.approx(1 - 1 / 1.1, abs=0.02)
    assert max(misses, key=lambda size: misses[size]["L_ft"]) == odd
    with pytest.raises(ConfigError, match="have 2 and 22"):
        leave_one_rank_out(readings(ranks=(8, 16, 32)))


def test_the_last_steps_are_the_last_of_each_run_in_whatever_order_they_are_given() -> None:
    exact = readings(noise=0, seeds=1)
    late = dataclasses.replace(exact, L_f=np.where(exact.N > 190, 2 * exact.L_f, exact.L_f))
    shuffled = np.random.default_rng(0).permutation(len(late))
    mixed = dataclasses.replace(
        late, **{name: getattr(late, name)[shuffled] for name in ("P", "N", "L_ft", "L_f", "run")}
    )
    for runs in (late, mixed):
        assert last_steps(runs)["L_f"] == pytest.approx(0.5, abs=1e-6)
