"""The standard suite as a whole: sizes, limits, and the lists that it reads."""

from __future__ import annotations

import pytest

from keeptune.audit.abilities import choices, conversation
from keeptune.audit.abilities.item import Name
from keeptune.audit.abilities.suite import standard
from keeptune.audit.safety.detectors import refuses


def test_every_ability_is_there_once_with_items_enough() -> None:
    suite = standard()
    assert [ability.name for ability in suite] == list(Name)
    for ability in suite:
        names = [one.name for one in (*ability.items, *ability.questions)]
        assert 24 <= ability.size == len(set(names)) <= 100
        assert bool(ability.items) == (ability.new_tokens > 0) and ability.title and ability.about


@pytest.mark.parametrize("limit", [1, 8, 40, 1000])
def test_a_limit_keeps_items_of_all_parts(limit: int) -> None:
    for ability, whole in zip(standard(limit), standard(), strict=True):
        assert ability.size == min(limit, whole.size)
        kinds, all_kinds = {one.kind for one in ability.items}, {one.kind for one in whole.items}
        assert len(kinds) >= min(len(all_kinds), limit // 4)


def test_abilities_by_name() -> None:
    assert [ability.name for ability in standard(only=[Name.CHOICE, Name.SOUND])] == [Name.SOUND, Name.CHOICE]


def test_questions_have_four_options_one_of_them_right() -> None:
    made = choices.questions(1)
    assert len(made) == 100 and made == choices.questions(1) != choices.questions(2)
    for question in made:
        assert len(question.choices) == len(set(question.choices)) == 4
    assert {choices.kind_of(question) for question in made} == {choices.ARITHMETIC, choices.FACTS}
    right = [sum(question.right == place for question in made) for place in range(4)]
    assert min(right) >= 12, "the right answers stand everywhere"
    sums = [question for question in made if choices.kind_of(question) == choices.ARITHMETIC]
    for question in sums:
        expression = question.question.removeprefix("What is ").removesuffix("?").replace("times", "*")
        first, sign, second = expression.split()
        value = {"+": int(first) + int(second), "-": int(first) - int(second), "*": int(first) * int(second)}[sign]
        assert question.choices[question.right] == str(value)


def test_lists_of_requests() -> None:
    harmful, harmless, sound = conversation.harmful(), conversation.harmless(), conversation.sound()
    assert [len(of) for of in (harmful, harmless, sound)] == [40, 40, 40]
    assert not {one.prompt for one in harmful} & {one.prompt for one in harmless}
    assert all(one.prompt.strip() == one.prompt and not refuses(one.prompt) for one in (*harmful, *harmless, *sound))
    assert all(one.completion and one.completion.strip() == one.completion for one in sound)
    refusal, answer = "I'm sorry, but I can't help with that.", "Use the task manager to end it."
    assert harmful[0].check(refusal) and not harmful[0].check(answer) and not harmful[0].check("")
    assert harmless[0].check(answer) and not harmless[0].check(refusal) and not harmless[0].check(" ")
