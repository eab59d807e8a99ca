"""Settings that cannot be meant are refused by name, before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from keeptune.errors import ConfigError
from keeptune.repair.methods import METHODS
from keeptune.repair.settings import RepairSettings

BAD: list[tuple[dict[str, Any], str]] = [
    ({"budget": 0.0}, "budget is 0"),
    ({"budget": -1.0}, "budget is -1"),
    ({"budget": float("nan")}, "budget is nan"),
    ({"budget": float("inf")}, "budget is inf"),
    ({"learning_rate": 0.0}, "learning_rate is 0"),
    ({"most_lost": 1.5}, "most_lost is 1.5"),
    ({"most_lost": -0.1}, "most_lost is -0.1"),
    ({"most_lost": float("nan")}, "most_lost is nan"),
    ({"rows": 1}, "rows is 1"),
    ({"length": 1}, "length is 1"),
    ({"max_length": 1}, "max_length is 1"),
    ({"seed": -1}, "seed is -1"),
    ({"tuning_steps": 0}, "tuning_steps is 0"),
    ({"tuning_rank": 0}, "tuning_rank is 0"),
    ({"batch_size": 0}, "batch_size is 0"),
    ({"prompts": "poem"}, "prompts is 'poem'"),
    ({"method": ["magic"]}, "no method 'magic'"),
    ({"method": ["svd", "svd"]}, "svd is named twice"),
    ({"tuned": "base"}, "base is named as the base and as the tuned model"),
]


@pytest.mark.parametrize(("given", "what"), BAD, ids=lambda value: str(value))
def test_what_cannot_be_meant_is_refused_by_name(given: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as refused:
        RepairSettings(**{"base": "base", "tuned": "tuned", **given})
    assert refused.value.fix


def test_methods_are_tried_in_their_order_and_budgets_share_a_folder() -> None:
    settings = RepairSettings(base="base", tuned="tuned", method=["tune", "interpolate"], budget=0.1)
    assert settings.methods == ["interpolate", "tune"]
    assert RepairSettings(base="base", tuned="tuned").methods == list(METHODS)
    assert settings.identity() == RepairSettings(base="base", tuned="tuned", most_lost=0.2, out="other").identity()
    assert settings.identity() != RepairSettings(base="base", tuned="tuned", rows=8).identity()
