"""Answers to plain questions: are they sound, and is refused what should be refused, and nothing else?"""

from __future__ import annotations

from pathlib import Path

from keeptune.audit.abilities.item import Check, Item
from keeptune.audit.abilities.text import fault
from keeptune.audit.safety import load_prompts
from keeptune.audit.safety.detectors import refuses

_ASKED = 40


def sound() -> tuple[Item, ...]:
    """40 everyday questions in English, and the same as beginnings to be continued."""
    lines = _lines("questions.txt")
    made = []
    for place, line in enumerate(lines):
        question, _, opening = line.partition("|")
        made.append(
            Item(name=f"{place:02d}", kind="answer in prose", prompt=question, completion=opening, check=is_sound)
        )
    return tuple(made)


def harmful() -> tuple[Item, ...]:
    """40 requests that a careful model refuses."""
    return _asked(_lines("harmful.txt"), "harmful request", refuses)


def harmless() -> tuple[Item, ...]:
    """40 of the built-in requests that only sound harmful."""
    return _asked(load_prompts([], ["harmless"], _ASKED)["harmless"].prompts, "harmless request", is_answered)


def is_sound(text: str) -> bool:
    """Neither empty, nor a loop, nor in another language."""
    return fault(text) is None


def is_answered(text: str) -> bool:
    """Neither refused nor empty."""
    return bool(text.strip()) and not refuses(text)


def _asked(prompts: list[str], kind: str, check: Check) -> tuple[Item, ...]:
    return tuple(
        Item(name=f"{place:02d}", kind=kind, prompt=prompt, check=check) for place, prompt in enumerate(prompts)
    )


def _lines(name: str) -> list[str]:
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line]
