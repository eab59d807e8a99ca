"""The one sentence: it says what the verdicts say, and no more."""

from __future__ import annotations

from typing import Any

import pytest

from keeptune.audit.page.audit import change_verdict, sentence
from keeptune.audit.verdict import NO_DRIFT, NO_EVIDENCE
from tests.helpers.audit_report import answers, full_report, reading


def only(**texts: dict[str, Any]) -> dict[str, Any]:
    return {"texts": texts}


def test_everything_that_changed_is_named_with_its_size() -> None:
    assert sentence(full_report()) == (
        "The tuned model drifted from its base on 2 of 2 texts, most on self (KL 0.268 nats per token); accuracy fell "
        "on arc asked plainly (−16.0 points); refusals of harmful prompts changed on advbench (by rules −29.0 points)."
    )


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (
            {"self": NO_DRIFT},
            "The tuned model’s drift from its base is not distinguishable from zero on the text read.",
        ),
        (
            {"self": NO_DRIFT, "pydoc": NO_DRIFT},
            "The tuned model’s drift from its base is not distinguishable from zero on both texts read.",
        ),
        (
            {"self": NO_DRIFT, "pydoc": NO_DRIFT, "wiki": NO_DRIFT},
            "The tuned model’s drift from its base is not distinguishable from zero on all 3 texts read.",
        ),
        (
            {"self": NO_DRIFT, "pydoc": NO_EVIDENCE},
            "The tuned model’s drift from its base is not distinguishable from zero on the others, with not enough "
            "evidence on pydoc.",
        ),
        (
            {"self": NO_EVIDENCE},
            "There is not enough evidence to say whether the tuned model drifted on 1 text.",
        ),
        ({"self": "drifted"}, "The tuned model drifted from its base on self (KL 0.25 nats per token)."),
        (
            {"self": NO_DRIFT, "pydoc": "drifted", "wiki": NO_EVIDENCE},
            "The tuned model drifted from its base on 1 of 3 texts, most on pydoc (KL 0.25 nats per token), with not "
            "enough evidence on wiki.",
        ),
    ],
)
def test_texts(texts: dict[str, str], said: str) -> None:
    assert sentence(only(**{name: reading(0.25, verdict) for name, verdict in texts.items()})) == said


def test_a_model_against_itself_lost_nothing() -> None:
    report = full_report()
    for of_text in report["texts"].values():
        of_text["verdicts"] = dict.fromkeys(of_text["verdicts"], NO_DRIFT)
    for ways in report["tasks"]["arc"]["formats"].values():
        ways["per_character"] = answers(0.0, 1.0)
    for of_set in report["safety"]["sets"].values():
        for result in of_set["detectors"].values():
            result["verdict"] = "no change shown"
    assert sentence(report) == (
        "The tuned model’s drift from its base is not distinguishable from zero on both texts read; accuracy changed "
        "on no task beyond chance; refusals of harmful prompts did not change beyond chance."
    )


@pytest.mark.parametrize(
    ("change", "p", "items", "verdict"),
    [
        (-0.2, 0.049, 50, "fell"),
        (0.2, 0.049, 50, "rose"),
        (-0.2, 0.05, 50, NO_DRIFT),
        (-0.2, 0.001, 9, NO_EVIDENCE),
    ],
)
def test_verdict_on_a_change(change: float, p: float, items: int, verdict: str) -> None:
    assert change_verdict(answers(change, p), items) == verdict
