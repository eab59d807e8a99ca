"""Greedy answers: those of a naive loop, the same alone and in a batch, whatever a checkpoint wants to sample."""

from __future__ import annotations

import logging
from datetime import date
from typing import Any

import pytest
import torch

from keeptune.audit import answers
from keeptune.audit.answers import answer, rendered
from keeptune.data.templates import on_day
from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.replay.openings import chat_opening
from tests.helpers.families import family_model
from tests.helpers.models import CHAT_TEMPLATE, make_model, make_tokenizer

PROMPTS = [list(range(10, 10 + length)) for length in (1, 2, 3, 17, 5, 40, 8, 23, 11)] + [
    [7, 7, 7],
    [250] * 30,
    [7] * 3,
]


@torch.no_grad()
def naive(model: Any, prompt: list[int], new_tokens: int, end: int | None = 2) -> list[int]:
    """One prompt, alone, the whole text read again for every token."""
    ids = list(prompt)
    for _ in range(new_tokens):
        token = int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        if token == end:
            break
        ids.append(token)
    return ids[len(prompt) :]


def test_answers_are_those_of_a_naive_loop_in_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    expected = [naive(model, prompt, 16) for prompt in PROMPTS]
    assert len({tuple(one) for one in expected}) > 5
    for rows in (1, 4, 50):
        monkeypatch.setattr(answers, "ROWS_TOGETHER", rows)
        assert answer(model, PROMPTS, 16) == expected
    assert answer(model, PROMPTS[::-1], 16) == expected[::-1]


def test_an_answer_ends_before_any_token_that_ends_a_text() -> None:
    model = make_model()
    whole = naive(model, PROMPTS[3], 12, end=None)
    first, second = whole[4], whole[2]
    for given in (first, [first], [first, second], [2]):
        model.generation_config.eos_token_id = given
        ends = [given] if isinstance(given, int) else given
        cut = min((whole.index(end) for end in ends if end in whole), default=12)
        assert answer(model, PROMPTS[:4], 12)[3] == whole[:cut]
    model.generation_config.eos_token_id = None
    assert answer(model, PROMPTS[:4], 12)[3] == whole


def test_the_sampling_settings_of_a_checkpoint_are_left_aside() -> None:
    model = make_model()
    expected = answer(model, PROMPTS, 16)
    wanted = {
        "do_sample": True,
        "temperature": 3.0,
        "top_k": 3,
        "repetition_penalty": 5.0,
        "no_repeat_ngram_size": 2,
        "num_beams": 3,
        "min_new_tokens": 9,
        "suppress_tokens": expected[0][:2],
        "max_length": 3,
    }
    for name, value in wanted.items():
        setattr(model.generation_config, name, value)
    assert answer(model, PROMPTS, 16) == expected
    assert all(getattr(model.generation_config, name) == value for name, value in wanted.items())


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.WARNING, logger="keeptune")
    return caplog


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("bamba", None),
        ("mamba", None),
        ("jamba", None),
        ("gpt_neo", None),
        ("minimax", "one prompt at a time"),
        ("rwkv", "one prompt at a time"),
        ("xlstm", "one prompt at a time"),
    ],
)
def test_answers_of_any_family_are_those_of_the_full_forward(
    name: str, way: str | None, messages: pytest.LogCaptureFixture
) -> None:
    model = family_model(name)
    prompts = [PROMPTS[place] for place in (0, 3, 4, 6)]
    assert answer(model, prompts, 12) == [naive(model, prompt, 12, end=1) for prompt in prompts]
    said = [record.getMessage() for record in messages.records if record.name == logger.name]
    assert len(said) == (way is not None) and all(str(way) in text for text in said)


def test_a_model_that_cannot_be_answered_with_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()

    def generate(**given: Any) -> Any:
        raise IndexError("no such cache")

    monkeypatch.setattr(model, "generate", generate)
    with pytest.raises(ConfigError, match=r"without a cache.*IndexError: no such cache") as refused:
        answer(model, PROMPTS, 4)
    assert "leave out the prompts" in refused.value.fix


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        ("turn['content']", True),
        ("turn['content'] | trim", True),
        ("turn['content'] | upper", False),
        ("'' if turn['content'] is string else turn['content'][0]['text']", False),  # as of Idefics 3
        ("turn['role']", False),
    ],
)
def test_a_template_that_loses_the_prompt_is_refused(content: str, kept: bool) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{% for turn in messages %}<u>{{ " + content + " }}</u>{% endfor %}"
    if kept:
        assert "What is it?" in rendered(tokenizer, " What is it?")
        return
    with pytest.raises(ConfigError, match="leaves out or changes the text of a prompt"):
        rendered(tokenizer, "What is it?")


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('no user turns') }}",
        "{{ messages[3]['content'] }}",
        "{{ messages[0]['content'] + 1 }}",
        "{{ messages[0]['content'].encode('no such code') }}",
        "{{ 1 // (messages | length - 1) }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{{ messages[0]['content'] | no_such_filter }}",
        "{% for turn in messages %",
    ],
)
def test_a_template_that_fails_is_refused_whatever_it_raises(template: str) -> None:
    tokenizer = make_tokenizer(template)
    with pytest.raises(ConfigError, match="the chat template cannot render a prompt"):
        rendered(tokenizer, "Wer weiß? 😀")
    with pytest.raises(ConfigError, match="the chat template cannot render a user's turn"):
        chat_opening(tokenizer)


def test_a_template_that_writes_the_date_asks_on_the_day_of_the_audit() -> None:
    tokenizer = make_tokenizer("{{ strftime_now('%d %b %Y %H:%M') }}\n" + CHAT_TEMPLATE)
    with on_day(date(2026, 5, 4)):
        assert rendered(tokenizer, "Why?").startswith("04 May 2026 00:00\n")
