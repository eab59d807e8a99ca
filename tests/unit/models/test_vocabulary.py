"""The token that starts a document, which tokens two models share, and predictions over these alone."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import kl_div
from transformers import PreTrainedTokenizerFast

from keeptune.audit.meter import measure
from keeptune.audit.texts import without_tokens
from keeptune.errors import ConfigError
from keeptune.models.vocabulary import check_vocabularies, document_start, share_vocabulary, vocabularies
from tests.helpers.models import CHAT_TEMPLATE, make_model, make_tokenizer

ROWS = [{"input_ids": [1, 40, 17, 99], "labels": [1, 40, 17, 99], "document": "a"}]


def test_the_same_tokens_are_the_same() -> None:
    found = vocabularies(make_model(), make_model(seed=1), make_tokenizer(), make_tokenizer())
    assert found.same
    check_vocabularies(found)


def test_tokens_that_differ_are_named() -> None:
    wide, renamed = make_model(vocab=264), make_tokenizer()
    renamed.add_special_tokens({"additional_special_tokens": [f"<tool{n}>" for n in range(5)]})
    found = vocabularies(make_model(), wide, make_tokenizer(), renamed)
    assert (found.words, found.differing) == (259, {259 + n: (None, f"<tool{n}>") for n in range(5)})
    with pytest.raises(ConfigError, match=r"259 and 264 outputs; tokens that differ, 259: None and '<tool0>'"):
        check_vocabularies(found)
    found = vocabularies(wide, wide, make_tokenizer(), renamed)
    with pytest.raises(ConfigError, match=r"259: None and '<tool0>', .* 263") as refused:
        check_vocabularies(found)
    assert "--shared-vocabulary" in refused.value.fix


def test_shared_predictions_are_those_among_the_shared_tokens() -> None:
    base, tuned = make_model(vocab=264), make_model(seed=1)
    inputs = torch.tensor([ROWS[0]["input_ids"]])
    with torch.no_grad():
        expected = [model(input_ids=inputs).logits[0, :3, :259].double().log_softmax(-1) for model in (base, tuned)]
    found = vocabularies(base, tuned, make_tokenizer(), make_tokenizer())
    share_vocabulary(base, tuned, found)
    kl = float(kl_div(expected[1], expected[0], log_target=True, reduction="sum"))
    assert measure(base, tuned, ROWS).column("kl")[0] == pytest.approx(kl, rel=0.02)
    assert vocabularies(base, tuned, make_tokenizer(), make_tokenizer()).same


def test_models_of_two_tokenizers_share_nothing() -> None:
    turned = make_tokenizer()
    found = vocabularies(make_model(), make_model(), make_tokenizer(), turned)
    differing = {index: (f"a{index}", f"b{index}") for index in range(200)}
    with pytest.raises(ConfigError, match=r"195 more.*different tokens|different tokens.*195 more"):
        share_vocabulary(make_model(), make_model(), type(found)(words=259, differing=differing, sizes=(259, 259)))


def test_rows_with_other_tokens_are_left_out() -> None:
    assert without_tokens(ROWS, {3, 4}, 100) == ROWS
    assert without_tokens(ROWS, {40}, 100) == []
    assert without_tokens(ROWS, set(), 99) == []


def start_tokenizer(tokens: list[str], *, template: str | None = None, **named: str) -> PreTrainedTokenizerFast:
    """A tokenizer with these special tokens and two plain ones, some named as BOS, EOS and so on."""
    vocabulary = {token: index for index, token in enumerate(["a", "b", *tokens])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(tokens)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
    fast.chat_template = template
    return fast


CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
STARTS: dict[str, tuple[PreTrainedTokenizerFast, str, str]] = {
    "SmolLM2": (
        start_tokenizer(CHATML, template=CHAT_TEMPLATE, bos_token="<|im_start|>", eos_token="<|im_end|>"),
        "<|endoftext|>",
        "chat token",
    ),
    "a chat token that no template shows": (
        start_tokenizer(CHATML, bos_token="<|im_start|>", eos_token="<|im_end|>"),
        "<|endoftext|>",
        "chat token",
    ),
    "Llama 3": (
        start_tokenizer(
            ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
            template="{{ bos_token }}{{ messages[0].content }}<|eot_id|>",
            bos_token="<|begin_of_text|>",
            eos_token="<|eot_id|>",
        ),
        "<|begin_of_text|>",
        "bos_token",
    ),
    "Llama 2": (
        start_tokenizer(
            ["<unk>", "<s>", "</s>"],
            template="<s>[INST] {{ messages[0].content }} [/INST]",
            bos_token="<s>",
            eos_token="</s>",
        ),
        "<s>",
        "bos_token",
    ),
    "GPT-2": (
        start_tokenizer(["<|endoftext|>"], bos_token="<|endoftext|>", eos_token="<|endoftext|>"),
        "<|endoftext|>",
        "bos_token",
    ),
    "Qwen": (
        start_tokenizer(CHATML, template=CHAT_TEMPLATE, eos_token="<|im_end|>", pad_token="<|endoftext|>"),
        "<|endoftext|>",
        "found by name (the tokenizer has no bos_token)",
    ),
    "Phi-3, with both": (
        start_tokenizer(["<s>", "<|endoftext|>"], bos_token="<s>", eos_token="<|endoftext|>"),
        "<s>",
        "bos_token",
    ),
    "a bos_token of its own kind": (
        start_tokenizer(["[BOS]", "[EOS]"], bos_token="[BOS]", eos_token="[EOS]"),
        "[BOS]",
        "bos_token",
    ),
    "only an eos_token": (start_tokenizer(["</s>"], eos_token="</s>"), "</s>", "as no better token was found"),
}


@pytest.mark.parametrize("family", STARTS)
def test_the_start_of_a_document_is_right_for_each_family(family: str) -> None:
    tokenizer, token, how = STARTS[family]
    index, line = document_start(tokenizer)
    assert tokenizer.convert_ids_to_tokens(index) == token
    assert how in line
    assert token in line


def test_a_plain_token_that_only_looks_like_a_start_is_not_taken() -> None:
    plain = Tokenizer(models.BPE(vocab={"a": 0, "<s>": 1, "</s>": 2}, merges=[]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="</s>")
    assert document_start(tokenizer)[0] == 2


@pytest.mark.parametrize("override", ["<|im_end|>", 4])
def test_the_users_choice_wins(override: str | int) -> None:
    tokenizer = STARTS["SmolLM2"][0]
    assert document_start(tokenizer, override) == (4, "document start: <|im_end|>, as given")


@pytest.mark.parametrize("override", ["<absent>", "", -1, 259, True])
def test_a_choice_outside_the_vocabulary_is_refused(tokenizer: PreTrainedTokenizerFast, override: str | int) -> None:
    with pytest.raises(ConfigError, match="not in the vocabulary of 259 tokens"):
        document_start(tokenizer, override)


def test_nothing_found_asks_the_user() -> None:
    with pytest.raises(ConfigError, match="neither a token that starts a document nor an eos_token") as caught:
        document_start(start_tokenizer(["<x>"]))
    assert "--document-start" in caught.value.fix


def test_tokens_beyond_the_size_of_the_vocabulary_are_not_taken() -> None:
    holed = Tokenizer(models.BPE(vocab={"a": 0, "</s>": 1, "<s>": 9}, merges=[]))
    holed.add_special_tokens(["</s>", "<s>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=holed, bos_token="<s>", eos_token="</s>")
    index, line = document_start(tokenizer)
    assert (index, "bos_token <s> is beyond the model's vocabulary" in line) == (1, True)
