"""Figure, table and claims of KL and next-token replay on the base's own text and on foreign text."""

from __future__ import annotations

from typing import Any

from common.chat import kept
from common.chat.kept import right_answer, same_answer
from common.grid import Row
from common.stats import Claim, measured

NAMES = {
    "standard": "standard",
    "ntp_foreign": "next-token, foreign text",
    "ntp_chat": "next-token, own chats",
    "ntp_document": "next-token, own documents",
    "kl_foreign": "KL, foreign text",
    "kl_chat": "KL, own chats",
    "kl_document": "KL, own documents",
}
PAPER = {"standard": 49.07, "ntp_foreign": 46.02, "ntp_document": 51.62, "kl_foreign": 52.67, "kl_document": 52.67}
"""Right answers in the paper, of the base's 53.73 %."""


def figure(rows: list[Row]) -> Any:
    """A line per method."""
    return kept.figure(rows, NAMES)


def table(rows: list[Row]) -> str:
    """A line per method."""
    return kept.table(rows, NAMES)


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's runs of an instruct model show, as drift and as answers."""
    text = kept.real_text(rows)
    own_kl, own_ntp = "KL on its own text keeps", "next-token loss on its own text keeps"
    foreign_ntp = "next-token loss on foreign text"

    def paper(first: str, second: str) -> str:
        return f"of 53.73 % right, {PAPER[first]} against {PAPER[second]}"

    def drift(claim: str, first: str, second: str, **bound: Any) -> Claim | None:
        if not {first, second} <= set(kept.methods(rows)):
            return None
        measure = f"drift, {NAMES[first]} / {NAMES[second]}, on {kept.TEXTS[text]}, bootstrap over documents"
        ours = kept.ratio(rows, first, second, text)
        return kept.claim(rows, claim, measure, ours, paper=paper(first, second), **bound)

    def answers(claim: str, first: str, value: Any, **bound: Any) -> Claim | None:
        if not kept.of(rows, first, "arc") or not kept.of(rows, "standard", "arc"):
            return None
        what = "same answer as the base" if value is same_answer else "right answer"
        measure = f"share of ARC-Challenge, {what}, {NAMES[first]} − standard, bootstrap over items"
        ours = kept.difference(rows, first, "standard", "arc", value)
        return kept.claim(rows, claim, measure, ours, paper=paper(first, "standard"), **bound)

    than = "than standard fine-tuning"
    return measured(
        drift(f"{own_kl} more than half of what standard fine-tuning loses", "kl_document", "standard", below=0.5),
        drift("under KL foreign text is as good as its own", "kl_foreign", "kl_document", below=1.25),
        drift(f"{own_ntp} more {than}", "ntp_document", "standard", below=1.0),
        drift("next-token loss keeps less than KL on the same text", "ntp_document", "kl_document", above=1.0),
        drift(f"{foreign_ntp} is worse than no replay", "ntp_foreign", "standard", above=1.0),
        answers(f"{own_kl} more of the base's answers {than}", "kl_document", same_answer, above=0.0),
        answers(
            f"{foreign_ntp} keeps fewer of the base's answers than no replay", "ntp_foreign", same_answer, below=0.0
        ),
        answers(f"{own_kl} more right answers {than}", "kl_document", right_answer, above=0.0),
    )
