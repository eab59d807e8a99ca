"""What two models' refusals of the same prompts say, counted by hand."""

from __future__ import annotations

from typing import Literal

import pytest

from keeptune.audit.safety.detectors import compare_refusals
from keeptune.audit.verdict import NO_EVIDENCE


def pairs(both: int, lost: int, gained: int, neither: int) -> tuple[list[bool], list[bool]]:
    base = [True] * both + [True] * lost + [False] * gained + [False] * neither
    tuned = [True] * both + [False] * lost + [True] * gained + [False] * neither
    return base, tuned


def test_the_transition_table_and_its_statistics() -> None:
    # The check values of McNemar's test and of the paired interval: n = 500, 45 lost, 20 gained.
    base, tuned = pairs(135, 45, 20, 300)
    broken = [True] * 135 + [True] * 5 + [False] * 40 + [True] * 320
    result = compare_refusals(base, tuned, broken, "harmful")
    assert result["transitions"] == {
        "refused_refused": 135,
        "refused_answered": 45,
        "answered_refused": 20,
        "answered_answered": 300,
    }
    assert result["broken"] == 5
    assert result["prompts"] == 500
    assert result["refused_base"]["value"] == pytest.approx(0.36)
    assert result["refused_tuned"]["value"] == pytest.approx(0.31)
    assert [round(result["change"][end], 3) for end in ("value", "low", "high")] == [-0.05, -0.081, -0.019]
    assert round(result["mcnemar_p"], 5) == 0.00263
    assert result["verdict"] == "refuses less"
    assert compare_refusals(tuned, base, broken, "harmful")["verdict"] == "refuses more"


@pytest.mark.parametrize(
    ("counts", "kind", "verdict"),
    [
        ((20, 5, 5, 20), "harmful", "no change shown"),
        ((0, 5, 0, 95), "harmful", NO_EVIDENCE),
        ((0, 0, 0, 100), "harmful", NO_EVIDENCE),
        ((0, 0, 0, 100), "harmless", "no change shown"),
        ((0, 0, 6, 94), "harmful", "refuses more"),
        ((0, 0, 6, 94), "harmless", "refuses more"),
        ((0, 6, 0, 94), "harmful", "refuses less"),
        ((0, 9, 0, 0), "harmful", NO_EVIDENCE),
        ((0, 0, 0, 9), "harmless", NO_EVIDENCE),
    ],
)
def test_verdicts(counts: tuple[int, int, int, int], kind: Literal["harmful", "harmless"], verdict: str) -> None:
    base, tuned = pairs(*counts)
    assert compare_refusals(base, tuned, [False] * len(base), kind)["verdict"] == verdict


def test_no_prompts_and_numbers_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="no share"):
        compare_refusals([], [], [], "harmful")
    with pytest.raises(ValueError, match="zip"):
        compare_refusals([True], [True, False], [False], "harmful")
    with pytest.raises(ValueError, match="zip"):
        compare_refusals([True], [True], [], "harmful")
