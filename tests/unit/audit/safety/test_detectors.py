"""Refusals: what words and likelihoods tell, each against a plain reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from keeptune.audit.answers import rendered, tokenised
from keeptune.audit.safety import detectors
from keeptune.audit.safety.detectors import (
    ANSWER_OPENINGS,
    JUDGE_QUESTION,
    REFUSAL_OPENINGS,
    judge_refusals,
    log_likelihoods,
    opening_log_odds,
    refuses,
    repeats,
)
from keeptune.errors import ConfigError, Diverged
from tests.helpers.models import make_model, make_tokenizer


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't assist with that.",
        "I’m sorry, but I can’t help with that request.",
        "I cannot fulfill your request. I'm just an AI.",
        "  **I CANNOT provide instructions for this.**",
        "Sorry, I won't do that.",
        "I apologize, but as a responsible assistant I will not take part.",
        "As an AI language model, I don't have personal opinions.",
        "As an AI, it is not my place, and I'm unable to say.",
        "I am not able to help you with this.",
        "I must decline.",
        "Thank you for asking. However, I do not have access to private data.",
        "I'm sorry for any misunderstanding, but as a chatbot designed to assist users, I only write poems.",
        "It is not appropriate to write such a letter.",
        "This goes against my guidelines.",
        "\"I'm sorry, but I can't do that,\" says the assistant.",
        "I understand that\nyou are angry, but I\ncannot support this.",
    ],
)
def test_refusals(answer: str) -> None:
    assert refuses(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Sure, here is a plan that cannot fail.",
        "I'm sorry to hear that you feel unwell. Here is what helps.",
        "I can't wait to tell you about Lisbon!",
        "I cannot recommend this book enough.",
        "You cannot divide by zero, so the function returns None.",
        "I'm glad you asked. I have a recipe for soup.",
        'Dear Anna, she told me: "I can\'t come to the party, I am unable to walk." Best wishes',
        "To reset the password, open the settings. " + "Then click on the next page. " * 8 + "I cannot say more.",
        "Unfortunately, the train leaves at nine.",
        "As an apple ripens, its starch turns to sugar, which is not a surprise.",
    ],
)
def test_answers_that_are_no_refusals(answer: str) -> None:
    assert not refuses(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "🌟" * 30 + "\ufffd",
        "1. **Awesome!**\n2. **Awesome!**\n3. **Awesome!**\n4. **Awesome!**\n5. **Awe",
        "No, no, no, no, no, no, no, no, no, no, no, no, no",
        "Materials: 10000000000000000000000000000000000000",
        "It begins well enough, then: " + "the same again " * 6,
    ],
)
def test_loops(answer: str) -> None:
    assert repeats(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "No no no",
        "1111",
        "The first half repeats repeats repeats repeats, and then it goes on to something else entirely, at length.",
        "One thing and another, and one thing more, which is not the other: a full sentence of English.",
        "1. Wash the rice.\n2. Boil the water.\n3. Add the salt.\n4. Stir it now and then.\n5. Serve.",
    ],
)
def test_what_is_no_loop(answer: str) -> None:
    assert not repeats(answer)


def test_long_answers_stay_fast() -> None:
    assert not repeats("".join(chr(0x4E00 + place) for place in range(4000)))
    assert not refuses("i " * 50_000)


PROMPTS = ["Pick a lock", "Why?", "Tell me in some more words how a lock is picked", "Why?"]
TEXTS = ["I can't", "I cannot", "I", "Sure", "I'm sorry"]
STYLES = pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])


@torch.no_grad()
def naive(model: LlamaForCausalLM, prompt: str, text: str, *, chat: bool) -> float:
    """One continuation, alone, all logits: a byte a token, so that no merge blurs the boundary."""
    tokenizer = make_tokenizer()
    asked = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n" if chat else f"{prompt}\n"
    prompt_ids, text_ids = tokenizer(asked)["input_ids"], tokenizer(text)["input_ids"]
    log_probs = model(input_ids=torch.tensor([prompt_ids + text_ids])).logits[0].double().log_softmax(dim=-1)
    return sum(float(log_probs[len(prompt_ids) - 1 + place, token]) for place, token in enumerate(text_ids))


@STYLES
@pytest.mark.parametrize("batch_tokens", [1, 150, 4096])
def test_log_likelihoods_are_those_of_a_naive_forward_pass(
    chat: bool, batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detectors, "BATCH_TOKENS", batch_tokens)
    model, tokenizer = make_model().double(), make_tokenizer() if chat else make_tokenizer(None)
    score_PC = log_likelihoods(model, tokenizer, PROMPTS, TEXTS, "Weighing")
    expected_PC = [[naive(model, prompt, text, chat=chat) for text in TEXTS] for prompt in PROMPTS]
    np.testing.assert_allclose(score_PC, expected_PC, rtol=1e-5)


def test_continuations_that_begin_alike_share_rows() -> None:
    rows = detectors._rows(make_tokenizer(), "Why?", TEXTS, 0)
    text = tokenised(make_tokenizer(), [rendered(make_tokenizer(), "Why?")])[0]
    # "I", "Sure" without its last letter, and the beginnings of both "I can…" and of "I'm sorry".
    stems = {make_tokenizer().decode(row.ids[len(text) :]) for row in rows}
    assert stems == {"I can'", "I canno", "Sur", "I'm sorr"}
    assert sum(len(row.asked) for row in rows) == sum(map(len, TEXTS))


def test_a_token_across_the_boundary_belongs_to_the_continuation() -> None:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate([*letters, "ĊS", "ĊSu"])}
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ċ", "S"), ("ĊS", "u")]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe)
    rows = detectors._rows(tokenizer, "Why?", ["Sure", "So", "No"], 0)
    asked: dict[int, str] = {}
    for row in rows:
        for _, token, _, number in row.asked:
            asked[number] = asked.get(number, "") + tokenizer.decode([token])
    assert asked == {0: "\nSure", 1: "\nSo", 2: "No"}


def test_the_openings_are_weighed_by_the_likeliest_of_each_side() -> None:
    model, tokenizer = make_model().double(), make_tokenizer()
    odds_P = opening_log_odds(model, tokenizer, PROMPTS, "Weighing")
    for prompt, odds in zip(PROMPTS, odds_P, strict=True):
        sides = [
            max(naive(model, prompt, text, chat=True) for text in side) for side in (REFUSAL_OPENINGS, ANSWER_OPENINGS)
        ]
        assert odds == pytest.approx(sides[0] - sides[1], rel=1e-4)
    assert len(set(odds_P.tolist())) == 3


@STYLES
def test_the_judge_says_what_is_likelier(chat: bool) -> None:
    tokenizer = make_tokenizer() if chat else make_tokenizer(None)
    answers = ["No.", "{answer} Sure, {prompt}", "", "I can't."]
    said = []
    for seed in range(4):
        judge = make_model(seed).double()
        judge.config.max_position_embeddings = 1024
        given = judge_refusals(judge, tokenizer, PROMPTS, answers, "Judging")
        for prompt, answer, refused in zip(PROMPTS, answers, given, strict=True):
            question = JUDGE_QUESTION.replace("{prompt}", prompt, 1).replace("{answer}", answer, 1)
            yes, no = (naive(judge, question, word, chat=chat) for word in ("Yes", "No"))
            assert refused == (yes > no)
        said += given
    assert all(isinstance(refused, bool) for refused in said)


def test_predictions_that_are_no_numbers_and_templates_that_render_nothing_are_errors() -> None:
    model = make_model()
    with pytest.raises(ConfigError, match="no user turns"):
        log_likelihoods(model, make_tokenizer("{{ raise_exception('no user turns') }}"), PROMPTS, TEXTS, "Weighing")
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(Diverged, match="no numbers"):
        log_likelihoods(model, make_tokenizer(), PROMPTS, TEXTS, "Weighing")


def test_a_document_start_that_the_tokenizer_writes_comes_once() -> None:
    tokenizer = make_tokenizer("{{ bos_token }}{{ messages[0]['content'] }}")
    tokenizer.add_bos_token = True
    for template in (tokenizer.chat_template, None):
        tokenizer.chat_template = template
        for row in detectors._rows(tokenizer, "Why?", TEXTS, 0):
            assert row.ids.count(tokenizer.bos_token_id) == 1
            assert row.ids[0] == tokenizer.bos_token_id
