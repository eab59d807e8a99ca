"""The token that starts a document, for the kinds of tokenizers that models come with."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from keeptune.errors import ConfigError
from keeptune.models.vocabulary import document_start
from tests.helpers.models import CHAT_TEMPLATE, make_model


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
        "chat mark",
    ),
    "a chat mark that no template shows": (
        start_tokenizer(CHATML, bos_token="<|im_start|>", eos_token="<|im_end|>"),
        "<|endoftext|>",
        "chat mark",
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
    "only an eos_token": (start_tokenizer(["</s>"], eos_token="</s>"), "</s>", "for want of a better one"),
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


def test_the_models_configuration_is_asked_where_names_say_nothing() -> None:
    tokenizer = start_tokenizer(["[DOC]", "[END]"], eos_token="[END]")
    model = make_model()
    model.config.bos_token_id = 2
    index, line = document_start(tokenizer, model)
    assert (index, "the model's bos_token_id" in line) == (2, True)
    # Configurations are often left at their class's default: an ordinary token is not believed.
    model.config.bos_token_id = 1
    assert document_start(tokenizer, model)[0] == 3


@pytest.mark.parametrize("override", ["<|im_end|>", 4])
def test_the_users_choice_wins(override: str | int) -> None:
    tokenizer = STARTS["SmolLM2"][0]
    assert document_start(tokenizer, None, override) == (4, "document start: <|im_end|>, as asked for")


@pytest.mark.parametrize("override", ["<absent>", "", -1, 259, True])
def test_a_choice_outside_the_vocabulary_is_refused(
    tokenizer: PreTrainedTokenizerFast, model: LlamaForCausalLM, override: str | int
) -> None:
    with pytest.raises(ConfigError, match="not in the vocabulary of 259 tokens"):
        document_start(tokenizer, model, override)


def test_nothing_found_asks_the_user() -> None:
    with pytest.raises(ConfigError, match="neither a token that starts a document nor an eos_token") as caught:
        document_start(start_tokenizer(["<x>"]))
    assert "--document-start" in caught.value.fix


def test_tokens_that_the_model_has_no_row_for_are_not_taken() -> None:
    tokenizer = start_tokenizer(["</s>", "<s>"], bos_token="<s>", eos_token="</s>")
    index, line = document_start(tokenizer, make_model(vocab=3))
    assert (index, "bos_token <s> is beyond the model's vocabulary" in line) == (2, True)
