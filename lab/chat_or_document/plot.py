"""Figure, table and claims of what the replay text of a chat model starts from."""

from __future__ import annotations

from typing import Any

from common.chat import kept
from common.grid import Row
from common.stats import Claim, measured

NAMES = {
    "standard": "no replay",
    "ntp_document": "next-token, documents",
    "ntp_chat": "next-token, chats",
    "kl_document": "KL, documents",
    "kl_mixed": "KL, half of either",
    "kl_chat": "KL, chats",
}


def figure(rows: list[Row]) -> Any:
    """A line per method."""
    return kept.figure(rows, NAMES)


def table(rows: list[Row]) -> str:
    """A line per method."""
    return kept.table(rows, NAMES)


def claims(rows: list[Row]) -> list[Claim]:
    """Which prompts keep what: our own findings, since neither paper has it."""
    has, real = set(kept.methods(rows)), kept.real_text(rows)

    def drift(claim: str, first: str, second: str, text: str, **bound: Any) -> Claim | None:
        if not {first, second} <= has:
            return None
        measure = f"drift, {NAMES[first]} / {NAMES[second]}, on {kept.TEXTS[text]}, bootstrap over documents"
        return kept.claim(rows, claim, measure, kept.ratio(rows, first, second, text), **bound)

    def answers(claim: str) -> Claim | None:
        if not kept.of(rows, "kl_chat", "arc") or "kl_document" not in has:
            return None
        ours = kept.difference(rows, "kl_document", "kl_chat", "arc", kept.same_answer)
        measure = f"share of ARC-Challenge, {NAMES['kl_document']} − {NAMES['kl_chat']}, bootstrap over items"
        return kept.claim(rows, claim, measure, ours, above=0.0)

    def odds(claim: str) -> Claim | None:
        if not {"kl_chat", "kl_document"} <= has:
            return None
        reading, _ = kept.odds_change(rows, "kl_chat")
        ours = kept.ratio(rows, "kl_chat", "kl_document", reading, kept.moved_odds)
        measure = "mean move of the log-odds, KL on chats / on documents, bootstrap over prompts"
        return kept.claim(rows, claim, measure, ours, below=1.0)

    chats, documents = "replayed chats keep", "replayed documents keep"
    return measured(
        drift("replay from the document start keeps chats too", "kl_document", "standard", "chat", below=0.5),
        drift(f"{chats} chats better than replayed documents do", "kl_chat", "kl_document", "chat", below=1.0),
        drift(f"{chats} documents too", "kl_chat", "standard", "document", below=0.5),
        drift(f"{documents} documents better than replayed chats do", "kl_chat", "kl_document", "document", above=1.0),
        drift(f"{documents} real text better than replayed chats do", "kl_chat", "kl_document", real, above=1.0),
        drift("half of either keeps chats as chats alone do", "kl_mixed", "kl_chat", "chat", below=1.25),
        drift(
            "half of either keeps documents as documents alone do", "kl_mixed", "kl_document", "document", below=1.25
        ),
        answers("questions asked plainly are answered as by the base more often after replayed documents"),
        odds(f"{chats} the odds of a refusal better than replayed documents do"),
    )
