"""Draw figure.svg and figure.png, and state the claims and the table, from results.csv alone.

python lab/instruct/plot.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import kept
from grid import Row, draw
from kept import difference, drift_ratio, real_text, right_answer, same_answer
from stats import Claim, Interval

HERE = Path(__file__).resolve().parent
NAMES = {
    "standard": "standard",
    "ntp_foreign": "next-token, foreign text",
    "ntp_chat": "next-token, own chats",
    "ntp_document": "next-token, own documents",
    "kl_foreign": "KL, foreign text",
    "kl_chat": "KL, own chats",
    "kl_document": "KL, own documents",
}


def figure(rows: list[Row]) -> Any:
    """A line a method."""
    return kept.figure(rows, NAMES)


def table(rows: list[Row]) -> str:
    """A line a method."""
    return kept.table(rows, NAMES)


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper's runs of an instruct model show, and what of it is seen in drift and in answers."""
    text = real_text(rows)
    where = f"on {kept.TEXTS[text]}, bootstrap over documents"

    def ratio(claim: str, paper: str, first: str, second: str, **bound: float) -> Claim | None:
        if not {first, second} <= set(kept.methods(rows)):
            return None
        measure = f"drift, {NAMES[first]} / {NAMES[second]}, {where}"
        ours = drift_ratio(rows, first, second, text)
        return Claim(claim=claim, paper=paper, measure=measure, ours=ours, runs=kept.training_runs(rows), **bound)

    def answers(claim: str, paper: str, first: str, second: str, value: Any, **bound: float) -> Claim | None:
        if not kept.of(rows, first, "arc") or not kept.of(rows, second, "arc"):
            return None
        what = "same answer as the base" if value is same_answer else "right answer"
        measure = f"share of ARC-Challenge, {what}, {NAMES[first]} − {NAMES[second]}, bootstrap over items"
        ours: Interval = difference(rows, first, second, "arc", value)
        return Claim(claim=claim, paper=paper, measure=measure, ours=ours, runs=kept.training_runs(rows), **bound)

    points = "of 53.73 % right, {} against {}".format
    said = [
        ratio(
            "KL on its own text keeps more than half of what standard fine-tuning loses",
            points("52.67", "49.07"),
            "kl_document",
            "standard",
            below=0.5,
        ),
        ratio(
            "under KL foreign text is as good as its own",
            points("52.67", "52.67"),
            "kl_foreign",
            "kl_document",
            below=1.25,
        ),
        ratio(
            "next-token loss on its own text keeps more than standard fine-tuning",
            points("51.62", "49.07"),
            "ntp_document",
            "standard",
            below=1.0,
        ),
        ratio(
            "next-token loss keeps less than KL on the same text",
            points("51.62", "52.67"),
            "ntp_document",
            "kl_document",
            above=1.0,
        ),
        ratio(
            "next-token loss on foreign text is worse than no replay",
            points("46.02", "49.07"),
            "ntp_foreign",
            "standard",
            above=1.0,
        ),
        answers(
            "KL on its own text keeps more of the base's answers than standard fine-tuning",
            points("52.67", "49.07"),
            "kl_document",
            "standard",
            same_answer,
            above=0.0,
        ),
        answers(
            "next-token loss on foreign text keeps fewer of the base's answers than no replay",
            points("46.02", "49.07"),
            "ntp_foreign",
            "standard",
            same_answer,
            below=0.0,
        ),
        answers(
            "KL on its own text keeps more right answers than standard fine-tuning",
            points("52.67", "49.07"),
            "kl_document",
            "standard",
            right_answer,
            above=0.0,
        ),
    ]
    return [claim for claim in said if claim is not None]


if __name__ == "__main__":
    draw(HERE, figure)
