"""The verdict of the capacity probe in a sentence, and its table."""

from __future__ import annotations

from typing import Any

import pytest

from keeptune.audit.verdict import NO_EVIDENCE
from keeptune.probes.capacity import CONSTRAINED, PLAIN, SATURATED, SPARE, UNDECIDED
from keeptune.probes.describe import describe, print_capacity


def interval(value: float) -> dict[str, Any]:
    return {"value": value, "low": 0.9 * value, "high": 1.1 * value, "documents": 20}


def result(verdict: str, **changed: Any) -> dict[str, Any]:
    return {
        "plan": {"model": "base", "data": "text", "steps": 100, "lambda_": 10.0},
        "gain": {PLAIN: interval(1.0), CONSTRAINED: interval(0.8)},
        "kl": {PLAIN: interval(0.3), CONSTRAINED: interval(0.05)},
        "noise_floor": 0.001,
        "share": interval(0.8),
        "price": interval(0.0625),
        "price_share": interval(0.2),
        "price_at_half": 0.08,
        "price_to_come": 0.03,
        "verdict": verdict,
        **changed,
    }


@pytest.mark.parametrize(
    ("verdict", "changed", "said"),
    [
        (SPARE, {}, "Spare capacity: the model can learn this task"),
        (SATURATED, {}, "at least 0.03 nats per token of forgetting"),
        (UNDECIDED, {}, "still falling, 0.08 → 0.062 nats per token"),
        (UNDECIDED, {"price_at_half": None}, "run longer than 100 steps, or with another λ than 10"),
        (NO_EVIDENCE, {}, "Not enough evidence: read more documents"),
    ],
)
def test_every_verdict_says_what_to_expect_or_to_do(verdict: str, changed: dict[str, Any], said: str) -> None:
    assert said in describe(result(verdict, **changed))


def test_the_table_has_every_number(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_capacity(result(SATURATED))
    shown = capsys.readouterr().out
    for text in ("1.0000 [0.9000, 1.1000]", "constrained, λ = 10", "0.0625 [0.0563, 0.0688]", "0.0800", "0.0300"):
        assert text in shown
    print_capacity(result(NO_EVIDENCE, share=None, price=None, price_share=None, price_at_half=None))
    assert "Share of the plain run" not in capsys.readouterr().out
