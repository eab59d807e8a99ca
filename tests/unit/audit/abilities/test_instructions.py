"""The constraints, each with answers that meet it and answers that do not."""

from __future__ import annotations

import pytest

from keeptune.audit.abilities.instructions import CONSTRAINTS, follows, items

BY_KIND = {constraint.kind: constraint for constraint in CONSTRAINTS}
CASES: dict[str, tuple[str, list[str], list[str]]] = {
    "use a word": (
        "seven",
        ["There are SEVEN days.", "“Seven” it is.", "seven, of course"],
        ["There are seventeen days.", "There are 7 days.", "sev en things", "séven things"],
    ),
    "avoid a word": ("and", ["Salt or pepper.", "Sandy handles it."], ["Salt and pepper.", "This AND that."]),
    "case": (
        "small",
        ["the rain falls. 3 drops!", "straße und über"],
        ["The rain falls.", "the rain FALLS", "123 456", "日本 語"],
    ),
    "begin with": (
        "In my view",
        ["In my view, it is good.", '"in my  view it is"', "**In my view** it rains"],
        ["It is, in my view, good.", "Sure! In my view it is.", "In my opinion it is"],
    ),
    "end with": (
        "That is all",
        ["It rains. That is all.", "It rains. THAT IS ALL!", 'It rains, "that is\nall."', "It rains. That is all 	"],
        ["That is all. It rains.", "It rains. That is all folks", "It rains. That is"],
    ),
    "bullet points": (
        "2",
        ["- one\n- two", "Here:\n\n* one thing\n* two", "  - a\n  - b\nDone now."],
        ["- one", "- one\n- two\n- three", "-one\n-two", "1. one\n2. two", "- one - two", "– one\n– two"],
    ),
    "quotation marks": (
        "",
        ['"It rains a lot."', "“It rains a lot.”\n", ' "a b" '],
        ['It "rains" a lot.', '"It rains a lot', 'It rains a lot"', "'It rains a lot'", '""', 'He said: "It rains"'],
    ),
    "title": (
        "A title",
        ["<<Rain>>\nIt rains.", "It rains. <<The Rain in Spain>>"],
        ["<Rain>\nIt rains.", "<<>> it rains", "<< >> it rains", "<<Rain\nIt rains>>", "«Rain» it falls"],
    ),
    "no commas": ("", ["It rains a lot.", "It rains; a lot، really"], ["Well, it rains.", "1,000 drops"]),
    "postscript": (
        "P.S.",
        ["It rains.\nP.S. Bring a hat.", "It rains.\n\n**P.S.** Bring a hat", "It rains.\nP. S. hats"],
        ["It rains. P.S.", "It rains.\nPS bring a hat", "The P.S. is missing here", "It rains.\np.s. hat"],
    ),
    "separated paragraphs": (
        "2",
        ["It rains.\n***\nIt snows.", "It rains.\n\n ***  \n\nIt snows."],
        ["It rains. *** It snows.", "It rains.\n***\n", "a b\n***\nc d\n***\ne f", "a b\n****\nc d", "It rains"],
    ),
    "placeholders": (
        "2",
        ["Dear [name], see you on [day].", "[a] [b] [c]"],
        ["Dear [name], hi.", "[] [] here", "[ ] and [.]", "(name) (day)", "[name\n] [day\n]"],
    ),
    "emphasis": (
        "1",
        ["It is *very* wet.", "It is **so** wet."],
        ["It is very wet.", "It is * wet", "** wet rain", "* a\n* b"],
    ),
    "a question": (
        "",
        ["Why does it rain?", 'Did he ask "why"?', "Is it wet? "],
        ["It rains.", "Why? It is wet.", "Why? How is it?", "¿Why is it"],
    ),
    "language": (
        "German",
        ["Das Herz ist ein Muskel, der das Blut durch den Körper pumpt, und es schlägt, solange wir leben."],
        [
            "The heart is a muscle that pumps the blood through the body, and it does so for as long as we live.",
            "Ja, gut.",
            "Le cœur est un muscle qui fait circuler le sang dans le corps, et il bat pendant toute la vie.",
        ],
    ),
}


@pytest.mark.parametrize("kind", BY_KIND)
def test_each_constraint_tells_what_meets_it(kind: str) -> None:
    value, meeting, missing = CASES[kind]
    check = follows(BY_KIND[kind], value)
    assert [text for text in meeting if not check(text)] == []
    assert [text for text in missing if check(text)] == []


@pytest.mark.parametrize("kind", BY_KIND)
def test_what_is_no_answer_follows_no_instruction(kind: str) -> None:
    for value in BY_KIND[kind].values:
        check = follows(BY_KIND[kind], value)
        looping = "p.s. - [x] *y* <<z>> seven window purple " * 30
        for text in ("", " \n", "word", "...", looping, "\u200b", "a" * 100_000):
            assert not check(text), text[:40]


def test_capital_letters() -> None:
    check = follows(BY_KIND["case"], "capital")
    assert check("THE RAIN FALLS. ÜBER ALL!") and not check("THE RAIN falls") and not check("The Rain")


def test_items_are_the_same_for_the_same_seed() -> None:
    made = items(1)
    assert len(made) == 40 and [one.prompt for one in made] == [one.prompt for one in items(1)]
    assert [one.prompt for one in made] != [one.prompt for one in items(2)]
    assert len({one.prompt for one in made}) == 40 and {one.kind for one in made} == set(BY_KIND)
    assert not any("{" in one.prompt for one in made)
