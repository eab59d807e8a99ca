"""Each answer in a sentence, its table and its page, from what repair.json holds."""

from __future__ import annotations

from typing import Any

import pytest

from keeptune.repair.page import repair_page
from keeptune.repair.words import sentence, table

KL = {"value": 0.0182, "low": 0.017, "high": 0.019, "documents": 64}
SHARE = {"value": 0.84, "low": 0.8, "high": 0.9, "documents": 64}
POINT = {"method": "interpolate", "strength": 0.5, "kl": KL, "undone": SHARE, "lost": {**SHARE, "value": 0.06}}
CERTIFICATE = {"budget": 0.02, "kl": KL, "verdict": "kept"}
RESULT: dict[str, Any] = {
    "answer": "repaired",
    "settings": {"budget": 0.02, "most_lost": 0.4, "out": "my repair", "base": "org/base"},
    "base": {"source": "org/base"},
    "tuned": {"source": "<tuned>", **POINT, "kl": {**KL, "value": 0.113}},
    "chosen": {**POINT, "saved": "all weights, in bfloat16"},
    "certificate": CERTIFICATE,
    "frontier": [POINT, {**POINT, "strength": 0.9, "kl": {**KL, "value": 0.05, "high": 0.06}}],
    "titles": {"interpolate": "interpolation (WiSE-FT)", "svd": "never read"},
    "limit": 0.019,
    "left_out": {"tune": "tuning changed no linear layer"},
    "learning_read_on": "verilog",
    "command": "keeptune repair",
    "commit": None,
    "seed": 42,
    "versions": {"torch": "2"},
}
ANSWERS = [
    ("repaired", "Repaired within 0.02 nats per token: KL to the base 0.1130 → 0.0182 [0.0170, 0.0190] (84.0\u202f%"),
    ("inconclusive", "Inconclusive: the certificate's interval contains 0.02 nats per token; more --rows narrow it."),
    ("not reachable", "Not reachable within 0.02 nats per token where 60\u202f% of what was learned is to stay."),
    ("nothing to repair", "Nothing to repair: the tuned model's KL to its base is 0.0182 [0.0170, 0.0190], certified"),
]


@pytest.mark.parametrize(("answer", "says"), ANSWERS)
def test_each_answer_is_a_sentence_and_a_page(answer: str, says: str) -> None:
    result = {**RESULT, "answer": answer}
    if answer == "nothing to repair":
        result |= {"chosen": None, "frontier": []}
    assert sentence(result).startswith(says)
    page = repair_page(result)
    assert "&lt;tuned&gt;" in page and "<tuned>" not in page
    assert ("tuning changed no linear layer" in page) is bool(result["frontier"])
    assert ("keeptune audit org/base &#39;my repair/model&#39;" in page) is (result["chosen"] is not None)


def test_nothing_that_may_be_lost_is_said() -> None:
    result = {**RESULT, "answer": "not reachable", "chosen": None, "certificate": None}
    assert sentence(result) == "Not reachable: no candidate keeps 60\u202f% of what was learned."
    assert "The certificate" not in repair_page(result)


def test_the_table_has_the_best_candidate_within_the_budget_of_each_method_that_was_read() -> None:
    rows = table(RESULT).rows
    assert [[cell.shown for cell in row][:3] for row in rows] == [["interpolation (WiSE-FT)", "0.500", "0.0182"]]
    beyond = {**RESULT, "limit": 0.001}
    assert [cell.shown for cell in table(beyond).rows[0]][1] == "0.500", "else the nearest"
