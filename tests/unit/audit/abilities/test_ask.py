"""How items are put to a model: in its chat template, with tools, with reasoning closed or asked for, or as text."""

from __future__ import annotations

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from keeptune.audit.abilities.ask import Asked, Reason, checked, put
from keeptune.audit.abilities.item import Ability, Item, Name
from keeptune.audit.abilities.suite import standard
from keeptune.audit.abilities.thinking import thought
from keeptune.errors import ConfigError
from tests.helpers.chats import published, template_tokenizer
from tests.helpers.models import make_model, make_tokenizer

SUITE = {ability.name: ability for ability in standard()}
WRITTEN = [name for name, ability in SUITE.items() if ability.items]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    """One that is only asked how many positions it has."""
    model = make_model()
    model.config.max_position_embeddings = 100_000
    return model


def shown(tokenizer: PreTrainedTokenizerFast, asked: Asked | Reason, place: int = 0) -> str:
    assert isinstance(asked, Asked)
    return tokenizer.decode(asked.prompts[place])


def test_a_turn_in_the_template_is_what_transformers_renders(model: LlamaForCausalLM) -> None:
    for name in ("qwen2_5", "llama3", "gemma3", "phi3"):
        tokenizer = template_tokenizer(published()[name])
        for ability in (SUITE[Name.FORMAT], SUITE[Name.SOUND]):
            turn = [{"role": "user", "content": ability.items[5].prompt}]
            expected = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
            assert shown(tokenizer, put(ability, model, tokenizer), 5) == expected


@pytest.mark.parametrize("name", sorted(published()))
def test_every_published_template_is_asked_or_says_why_not(name: str, model: LlamaForCausalLM) -> None:
    tokenizer = template_tokenizer(published()[name])
    for ability in SUITE.values():
        if not ability.items:
            continue
        few = Ability(**{**vars(ability), "items": ability.items[:2]})
        asked = put(few, model, tokenizer)
        if isinstance(asked, Reason):
            assert (few.name, asked) in {(Name.TOOLS, Reason.NO_TOOLS), (Name.THINKING, Reason.NO_REASONING)}
            continue
        text = shown(tokenizer, asked)
        assert few.items[0].prompt in text
        if few.name != Name.THINKING:
            assert not text.rstrip().endswith(("<think>", "<|channel|>analysis<|message|>")), "it would only think"
        if few.name == Name.TOOLS:
            assert few.items[0].tools[0]["function"]["name"] in text


def test_reasoning_that_the_template_opens_is_closed_or_counts_as_the_models(model: LlamaForCausalLM) -> None:
    tokenizer = template_tokenizer(published()["deepseek_r1_distill"])
    assert shown(tokenizer, put(SUITE[Name.FORMAT], model, tokenizer)).endswith("<think>\n\n</think>\n\n")
    thinking = SUITE[Name.THINKING]
    asked = put(thinking, model, tokenizer)
    assert isinstance(asked, Asked) and set(asked.heads) == {"<think>\n"}
    texts = ["It is easy.\n</think>\n\n5"] + ["5"] * (len(asked.items) - 1)
    whole = checked(thinking, asked, texts, chat=True)
    assert [thought(text) for text in whole] == [True] + [False] * (len(asked.items) - 1)
    tokenizer = template_tokenizer(published()["qwen3"])
    asked = put(thinking, model, tokenizer)
    assert isinstance(asked, Asked) and set(asked.heads) == {""}
    assert all(map(thought, checked(thinking, asked, ["<think>\nEasy.\n</think>\n5"] * len(asked.items), chat=True)))
    assert "</think>" in shown(tokenizer, put(SUITE[Name.FORMAT], model, tokenizer))


def test_without_a_template_completions_are_asked_or_nothing(model: LlamaForCausalLM) -> None:
    tokenizer = make_tokenizer(None)
    found = {name: put(SUITE[name], model, tokenizer) for name in WRITTEN}
    asked = {name for name, of in found.items() if isinstance(of, Asked)}
    assert asked == {Name.FORMAT, Name.SOUND}
    assert {of for of in found.values() if isinstance(of, Reason)} == {Reason.NO_TEMPLATE}
    text = shown(tokenizer, found[Name.FORMAT])
    assert text.endswith("JSON:") and "Paul" in text and not text.endswith(" ")


def test_of_a_completion_the_first_line_is_checked(model: LlamaForCausalLM) -> None:
    tokenizer, ability = make_tokenizer(None), SUITE[Name.FORMAT]
    asked = put(ability, model, tokenizer)
    assert isinstance(asked, Asked)
    said = [' ["a", "b", "c"]\n\nText: more'] * len(asked.items)
    assert set(checked(ability, asked, said, chat=False)) == {'["a", "b", "c"]'}
    assert checked(ability, asked, said, chat=True) == said
    sound = put(SUITE[Name.SOUND], model, tokenizer)
    assert isinstance(sound, Asked)
    assert checked(SUITE[Name.SOUND], sound, ["one\ntwo"] * 40, chat=False)[0] == "one\ntwo"


def test_items_that_leave_no_room_are_left_out_and_counted(model: LlamaForCausalLM) -> None:
    short, long = (Item(name=name, kind="a", prompt=name, check=str.isalpha) for name in ("hi", "long " * 60))
    ability = Ability(name=Name.FORMAT, title="t", about="a", items=(short, long), new_tokens=64)
    asked = put(ability, make_model(), make_tokenizer())
    assert isinstance(asked, Asked) and asked.items == [short] and asked.too_long == 1
    assert put(Ability(**{**vars(ability), "items": (long,)}), make_model(), make_tokenizer()) == Reason.NO_ROOM


def test_a_template_that_cannot_render_is_refused_in_words(model: LlamaForCausalLM) -> None:
    for template, why in {
        "{{ raise_exception('no chats today') }}{{ messages }}": "no chats today",
        "{% for m in messages %}<{{ m.role }}>{% endfor %}": "leaves out what the user says",
    }.items():
        with pytest.raises(ConfigError, match=why):
            put(SUITE[Name.SOUND], model, make_tokenizer(template))
