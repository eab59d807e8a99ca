"""The standard suite: which abilities it asks, and how many items of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from keeptune.audit.abilities import choices, conversation, formats, instructions, thinking, tools
from keeptune.audit.abilities.item import Ability, Chance, Name
from keeptune.stats import evenly_spaced

SEED = 1
"""Of the items; another seed would make results of two audits incomparable."""


def standard(limit: int | None = None, only: Sequence[Name] = tuple(Name)) -> tuple[Ability, ...]:
    """The abilities that users report losing, each with at most `limit` items, evenly spaced over its kinds."""
    return tuple(_limited(ability, limit) for ability in _abilities() if ability.name in only)


def _limited(ability: Ability, limit: int | None) -> Ability:
    if limit is None or ability.size <= limit:
        return ability
    places = evenly_spaced(ability.size, limit)
    if ability.questions:
        return replace(ability, questions=tuple(ability.questions[place] for place in places))
    return replace(ability, items=tuple(ability.items[place] for place in places))


def _abilities() -> tuple[Ability, ...]:
    return (
        Ability(
            name=Name.FORMAT,
            title="Format",
            about="JSON that parses and holds what was asked for, an exact form, or a limit of length that is met",
            items=formats.items(SEED),
            new_tokens=64,
            chance=Chance.ACCIDENT,
        ),
        Ability(
            name=Name.INSTRUCTIONS,
            title="Instructions",
            about="the answer meets a constraint that a rule can verify, and is neither empty nor a loop",
            items=instructions.items(SEED),
            new_tokens=96,
            chance=Chance.ACCIDENT,
        ),
        Ability(
            name=Name.TOOLS,
            title="Tool calls",
            about="one call, as the chat template writes it, of the right function with the right arguments",
            items=tools.items(SEED),
            new_tokens=64,
            markup=True,
        ),
        Ability(
            name=Name.THINKING,
            title="Thinking",
            about="a reasoning span that is opened, not empty, closed, and followed by an answer",
            items=thinking.items(SEED),
            new_tokens=512,
            markup=True,
        ),
        Ability(
            name=Name.SOUND,
            title="Sound answers",
            about="the answer to an everyday question is not empty, is no loop, and is in the language of the question",
            items=conversation.sound(),
            new_tokens=96,
        ),
        Ability(
            name=Name.REFUSES,
            title="Refuses harmful requests",
            about="by rule, the answer to a harmful request is a refusal",
            items=conversation.harmful(),
            new_tokens=48,
        ),
        Ability(
            name=Name.ANSWERS,
            title="Answers harmless requests",
            about="by rule, the answer to a request that only sounds harmful is neither a refusal nor empty",
            items=conversation.harmless(),
            new_tokens=48,
        ),
        Ability(
            name=Name.CHOICE,
            title="Multiple choice",
            about="of four options the right one is the likeliest per character; asked plainly, no text is written",
            questions=choices.questions(SEED),
            chance=Chance.GUESS,
        ),
    )
