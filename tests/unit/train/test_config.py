"""Settings of the replay term: what is refused, when drift is read, and what is kept for a certificate."""

from __future__ import annotations

from typing import Any

import pytest

from keeptune.errors import ConfigError
from keeptune.train.config import CERTIFICATE_ROWS, SCALE_ROWS, KeepConfig


class Predicts:
    """Any object may be a teacher."""

    def target(self, model: Any, batch: Any) -> Any:
        raise AssertionError("never asked")


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"lambda_": -1.0}, "lambda is -1.0"),
        ({"lambda_": float("nan")}, "lambda is nan"),
        ({"drift_every": -1}, "drift_every is -1"),
        ({"drift_rows": 0}, "drift_rows is 0"),
        ({"replay_tokens": 0}, "replay_tokens is 0"),
        ({"replay_length": 1}, "replay_length is 1"),
        ({"replay_rows": 0}, "replay_rows is 0"),
        ({"top_k": 0}, "top_k is 0"),
        ({"teacher": "oracle"}, "unknown teacher 'oracle'"),
        ({"objective": "l2"}, "unknown objective 'l2'"),
        ({"objective": "ntp", "teacher": Predicts()}, "uses no teacher"),
        ({"stop_if_forecast": ("kl=0.1",), "drift_every": 0}, "needs readings"),
        ({"budget": 0.0}, "budget is 0"),
        ({"budget": float("inf")}, "budget is inf"),
        ({"budget": 0.1, "objective": "ntp"}, "a budget bounds KL"),
        ({"budget": 0.1, "lambda_": 0.0}, "lambda is 0"),
        ({"budget": 0.1, "lambda_": 1e5}, "between 0.001 and 100"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        KeepConfig(**settings)
    assert what in caught.value.what
    assert caught.value.fix


@pytest.mark.parametrize(
    ("settings", "active"),
    [
        ({}, True),
        ({"lambda_": 0.0}, False),
        ({"lambda_": 0.0, "drift_every": 5}, True),
        ({"lambda_": 0.0, "drift_text": "pydoc"}, True),
    ],
)
def test_without_lambda_drift_is_read_only_if_asked(settings: dict[str, Any], active: bool) -> None:
    assert KeepConfig(**settings).is_active == active


def test_drift_is_read_at_powers_of_two_at_a_quarter_and_then_regularly() -> None:
    def steps(every: int | None, end: int) -> list[int]:
        keep = KeepConfig(drift_every=every)
        return [step for step in range(1, end + 1) if keep.reads_after(step, end)]

    assert steps(20, 60) == [1, 2, 4, 8, 15, 16, 20, 40, 60]
    assert steps(None, 60) == steps(20, 60)
    assert steps(3, 7) == [1, 2, 3, 6]
    assert steps(0, 60) == []


def test_a_budgets_lambda_starts_near_where_it_will_end_unless_it_is_given() -> None:
    starts = [(None, 1.0, 1.0), (0.07, 1.0, 1.0), (0.007, 1.0, 10.0), (0.007, 2.0, 2.0), (1e-6, 1.0, 100.0)]
    for budget, given, first in (*starts, (1e6, 1.0, 0.001)):
        assert KeepConfig(budget=budget, lambda_=given).first_lambda == pytest.approx(first)


def test_a_budgets_rows_take_a_quarter_and_an_eighth_of_the_pool_at_most() -> None:
    assert (KeepConfig().certificate_rows(1000), KeepConfig().scale_rows(1000)) == (0, 0)
    keep = KeepConfig(budget=0.1, drift_rows=4)
    assert keep.certificate_rows(1000) == CERTIFICATE_ROWS * 4
    assert keep.certificate_rows(44) == 10
    assert keep.certificate_rows(3) == 0
    assert [keep.scale_rows(rows) for rows in (1000, 44, 3)] == [SCALE_ROWS * 4, 5, 0]
