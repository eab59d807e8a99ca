"""What an ability is asked with: items, each with a rule that tells a pass from a fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from keeptune.audit.tasks.items import Item as Question

Check = Callable[[str], bool]


class Name(StrEnum):
    """The abilities of the standard suite."""

    FORMAT = "format"
    INSTRUCTIONS = "instructions"
    TOOLS = "tools"
    THINKING = "thinking"
    SOUND = "sound"
    REFUSES = "refuses"
    ANSWERS = "answers"
    CHOICE = "choice"


class Chance(StrEnum):
    """How often a model would pass that has not read the request."""

    ZERO = "zero"
    ACCIDENT = "accident"
    """The share of the base's answers to items of other kinds that an item's check passes."""
    GUESS = "guess"
    """One over the number of options."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One request and the rule for its answer."""

    name: str
    """Unique within its ability."""
    kind: str
    """Items of one kind are counted together in the report."""
    prompt: str
    """What the user says."""
    check: Check
    """Whether an answer, as text, passes."""
    completion: str | None = None
    """The same for a model without a chat template, as text to be continued; None where there is no such form."""
    one_line: bool = False
    """Whether the answer to `completion` is its first line alone."""
    tools: tuple[dict[str, Any], ...] = ()
    """Functions that may be called, as JSON schemas."""
    call: tuple[str, dict[str, Any]] | None = None
    """The name and the arguments of the call that is asked for."""


@dataclass(frozen=True, kw_only=True)
class Ability:
    """Something that users miss when a tuned model has lost it."""

    name: Name
    title: str
    """For people."""
    about: str
    """What passes, in a sentence."""
    items: tuple[Item, ...] = ()
    """Requests that are answered in text."""
    questions: tuple[Question, ...] = ()
    """Multiple choice, answered by likelihood."""
    new_tokens: int = 0
    """Length of an answer at most."""
    chance: Chance = Chance.ZERO
    markup: bool = False
    """Whether special tokens stay in the text that is checked."""

    @property
    def size(self) -> int:
        """How many items there are."""
        return len(self.items) + len(self.questions)
