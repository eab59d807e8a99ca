"""Draw figure.svg and figure.png, and state the claims and the table, from results.csv alone.

python lab/chat_or_document/plot.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import kept
from grid import Row, draw
from kept import TEXTS, difference, drift_ratio, moved_odds, odds_change, real_text, same_answer
from stats import Claim

HERE = Path(__file__).resolve().parent
NAMES = {
    "standard": "no replay",
    "ntp_document": "next-token, documents",
    "ntp_chat": "next-token, chats",
    "kl_document": "KL, documents",
    "kl_mixed": "KL, half of either",
    "kl_chat": "KL, chats",
}


def figure(rows: list[Row]) -> Any:
    """A line a method."""
    return kept.figure(rows, NAMES)


def table(rows: list[Row]) -> str:
    """A line a method."""
    return kept.table(rows, NAMES)


def claims(rows: list[Row]) -> list[Claim]:
    """Which prompts keep what: our own findings, since neither paper has it."""
    has = set(kept.methods(rows))
    real = real_text(rows)

    def ratio(claim: str, first: str, second: str, text: str, **bound: float) -> Claim | None:
        if not {first, second} <= has:
            return None
        measure = f"drift, {NAMES[first]} / {NAMES[second]}, on {TEXTS[text]}, bootstrap over documents"
        ours = drift_ratio(rows, first, second, text)
        return Claim(claim=claim, measure=measure, ours=ours, runs=kept.training_runs(rows), **bound)

    said = [
        ratio("replay from the document start keeps chats too", "kl_document", "standard", "chat", below=0.5),
        ratio(
            "replayed chats keep chats better than replayed documents do", "kl_chat", "kl_document", "chat", below=1.0
        ),
        ratio("replayed chats keep documents too", "kl_chat", "standard", "document", below=0.5),
        ratio(
            "replayed documents keep documents better than replayed chats do",
            "kl_chat",
            "kl_document",
            "document",
            above=1.0,
        ),
        ratio(
            "replayed documents keep real text better than replayed chats do", "kl_chat", "kl_document", real, above=1.0
        ),
        ratio("half of either keeps chats as chats alone do", "kl_mixed", "kl_chat", "chat", below=1.25),
        ratio(
            "half of either keeps documents as documents alone do", "kl_mixed", "kl_document", "document", below=1.25
        ),
    ]
    if {"kl_chat", "kl_document"} <= has and kept.of(rows, "kl_chat", "arc"):
        said.append(
            Claim(
                claim="questions asked plainly are answered as by the base more often after replayed documents",
                runs=kept.training_runs(rows),
                measure=f"share of ARC-Challenge, {NAMES['kl_document']} − {NAMES['kl_chat']}, bootstrap over items",
                ours=difference(rows, "kl_document", "kl_chat", "arc", same_answer),
                above=0.0,
            )
        )
    if {"kl_chat", "kl_document"} <= has:
        reading, _ = odds_change(rows, "kl_chat")
        said.append(
            Claim(
                claim="replayed chats keep the odds of a refusal better than replayed documents do",
                runs=kept.training_runs(rows),
                measure="mean move of the log-odds, KL on chats / on documents, bootstrap over prompts",
                ours=kept.ratio(rows, "kl_chat", "kl_document", reading, moved_odds),
                below=1.0,
            )
        )
    return [claim for claim in said if claim is not None]


if __name__ == "__main__":
    draw(HERE, figure)
