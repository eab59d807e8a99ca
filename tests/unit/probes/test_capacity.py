"""The capacity probe: the rule in numbers, a probe that goes on, and two models that it must tell apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from keeptune.audit.meter import MEASURES, Drift
from keeptune.audit.verdict import NO_EVIDENCE
from keeptune.errors import ConfigError
from keeptune.probes.capacity import (
    CONSTRAINED,
    PLAIN,
    SATURATED,
    SPARE,
    UNDECIDED,
    CapacityPlan,
    describe,
    judge,
    pace,
    print_capacity,
)

LETTERS = "abcdefghijkl"
LENGTH = 24


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def drift(documents: int, seed: int, **means: float) -> Drift:
    """Readings with the given means, of documents that lie within a fifth of them."""
    spread_D = np.random.default_rng(seed).uniform(0.8, 1.2, documents)
    spread_D /= spread_D.mean()
    sums_DM = np.zeros((documents, len(MEASURES)))
    for name, mean in means.items():
        sums_DM[:, MEASURES.index(name)] = 10 * mean * spread_D
    return Drift(sums_DM=sums_DM, tokens_D=np.full(documents, 10.0), documents=[str(d) for d in range(documents)])


def judged(
    *, gains: tuple[float, float], kls: tuple[float, float], at_half: float = 1.1, documents: int = 40
) -> dict[str, Any]:
    """The rule on a plain and a constrained run; `at_half` is the price there as a multiple of the last one."""
    drifts = {
        run: {"task": drift(documents, 1, ce_base=gain), "self": drift(documents, 2, kl=kl)}
        for run, gain, kl in zip(("plain", "constrained"), gains, kls, strict=True)
    }
    way = [
        {"step": 0, "L_ft": 5.0, "KL": 0.0},
        {"step": 1, "L_ft": 5.0, "KL": 0.0},
        {"step": 50, "L_ft": 5.0 - gains[1] / 2, "KL": kls[1] / 2 * at_half},
        {"step": 100, "L_ft": 5.0 - gains[1], "KL": kls[1]},
    ]
    return judge(drifts, 0.001, way)


@pytest.mark.parametrize(
    ("gains", "kls", "at_half", "expected"),
    [
        ((1.0, 0.95), (0.3, 0.01), 1.1, SPARE),
        ((1.0, 0.95), (0.3, 0.01), 1.5, SPARE),
        ((1.0, 0.95), (0.3, 0.05), 1.1, SATURATED),
        ((1.0, 0.95), (0.3, 0.05), 0.8, SATURATED),
        ((1.0, 0.95), (0.3, 0.05), 1.5, UNDECIDED),
        ((1.0, 0.2), (0.3, 0.01), 1.1, SATURATED),
        ((1.0, 0.95), (0.3, 0.019), 1.1, UNDECIDED),
        ((1.0, 0.6), (0.3, 0.005), 1.1, UNDECIDED),
        ((1.0, -0.1), (0.3, 0.01), 1.1, UNDECIDED),
        ((0.0, 0.0), (0.3, 0.01), 1.1, NO_EVIDENCE),
        ((1.0, 0.95), (0.001, 0.0), 1.1, NO_EVIDENCE),
    ],
)
def test_the_rule(gains: tuple[float, float], kls: tuple[float, float], at_half: float, expected: str) -> None:
    found = judged(gains=gains, kls=kls, at_half=at_half)
    assert found["verdict"] == expected
    assert expected.split()[0] in describe({**found, "plan": {"steps": 3, "lambda_": 10.0}}).lower()
    if found["price"]:
        assert found["price"]["value"] == pytest.approx(kls[1] * gains[0] / gains[1])
        assert found["price"]["low"] <= found["price"]["value"] <= found["price"]["high"]
        assert found["price_share"]["value"] == pytest.approx(found["price"]["value"] / kls[0])
        assert found["price_at_half"] == pytest.approx(found["price"]["value"] * at_half)
        power = -np.log(10) / np.log(2)
        assert found["price_to_come"] == pytest.approx(found["price"]["low"] * max(1.0, at_half) ** power)
    json.dumps(found, allow_nan=False)


def test_few_documents_are_no_evidence() -> None:
    assert judged(gains=(1.0, 0.95), kls=(0.3, 0.01), documents=9)["verdict"] == NO_EVIDENCE


def test_a_falling_price_is_told_with_what_to_do() -> None:
    found = judged(gains=(1.0, 0.95), kls=(0.3, 0.05), at_half=1.5)
    told = describe({**found, "plan": {"steps": 100, "lambda_": 10.0}})
    assert "still falling, 0.079 → 0.053" in told and "--steps 200" in told


def test_a_run_that_had_learned_nothing_by_half_has_no_pace() -> None:
    way = [{"step": step, "L_ft": loss, "KL": 0.1} for step, loss in ((0, 5.0), (2, 5.1), (5, 4.0))]
    assert pace(way) == (None, 0.0)
    way[1]["L_ft"] = 4.5
    before, after = pace(way)
    assert before == pytest.approx(2.0)
    assert after == pytest.approx(2.0 ** -(np.log(10) / np.log(2.5))), "five steps have no half: two, and then three"


def test_settings_that_tell_nothing_are_refused() -> None:
    for wrong in ({"steps": 1}, {"documents": 9}, {"lambda_": 0.0}, {"learning_rate": -1.0}):
        with pytest.raises(ConfigError):
            CapacityPlan(model="base", data="text", **wrong)


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
