"""Which tokens are read and which are trained on, down to the token."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from keeptune.data.encode import encode, text_rows
from keeptune.errors import ConfigError, SourceError, SourceNotFound
from tests.helpers.models import CHAT_TEMPLATE, make_tokenizer

START = 0
MARKED_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
REWRITING_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if loop.last and m['role'] == 'assistant' %}<think></think>{% endif %}{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TWO_ANSWERS = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "héllo\n"},
    {"role": "user", "content": "more"},
    {"role": "assistant", "content": "yes"},
]


def rows(*documents: dict[str, Any]) -> Dataset:
    return Dataset.from_list([{**row, "document": f"d{number}"} for number, row in enumerate(documents)])


def trained(tokenizer: PreTrainedTokenizerFast, row: dict[str, Any]) -> str:
    return str(tokenizer.decode([label for label in row["labels"] if label != -100]))


def assert_aligned(row: dict[str, Any]) -> None:
    assert len(row["labels"]) == len(row["input_ids"])
    assert all(label in (token, -100) for token, label in zip(row["input_ids"], row["labels"], strict=True))


@pytest.mark.parametrize("max_length", [2, 3, 7, 26, 27, 28, 100])
@pytest.mark.parametrize("start", [START, None])
@pytest.mark.parametrize("append_eos", [True, False])
def test_every_token_of_a_text_but_its_first_is_a_target_exactly_once(
    tokenizer: PreTrainedTokenizerFast, max_length: int, start: int | None, append_eos: bool
) -> None:
    text = "abcdefghijklmnopqrstuvwxyz"
    whole = ([] if start is None else [start]) + tokenizer(text)["input_ids"] + [2] * append_eos
    encoded = encode(
        rows({"text": text}), tokenizer, max_length=max_length, document_start=start, append_eos=append_eos
    )
    targets = [target for row in encoded for target in row["labels"][1:]]
    assert targets == whole[1:]
    pairs = [pair for row in encoded for pair in zip(row["input_ids"], row["labels"][1:], strict=False)]
    assert pairs == list(itertools.pairwise(whole))
    assert all(2 <= len(row["input_ids"]) <= max_length and row["labels"] == row["input_ids"] for row in encoded)


def test_windows_never_mix_documents(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode(rows({"text": "aaaa"}, {"text": "bb"}), tokenizer, max_length=3, document_start=START)
    assert [tokenizer.decode(row["input_ids"]) for row in encoded] == [
        "<|endoftext|>aa",
        "aaa",
        "a<|im_end|>",
        "<|endoftext|>bb",
        "b<|im_end|>",
    ]
    assert list(encoded["document"]) == ["d0", "d0", "d0", "d1", "d1"]


@pytest.mark.parametrize(
    ("template", "bos", "text", "expected"),
    [
        (CHAT_TEMPLATE, None, "a", "<|endoftext|>a<|im_end|>"),
        (CHAT_TEMPLATE, None, "<|endoftext|>a", "<|endoftext|>a<|im_end|>"),
        (CHAT_TEMPLATE, "<|im_start|>", "<|im_start|>a<|im_end|>", "<|im_start|>a<|im_end|>"),
        (CHAT_TEMPLATE, None, "<|im_start|>user\na<|im_end|>\n", "<|im_start|>user\na<|im_end|>\n<|im_end|>"),
        ({"default": CHAT_TEMPLATE}, None, "<|im_start|>user\na<|im_end|>", "<|im_start|>user\na<|im_end|>"),
        ("<|endoftext|>" + CHAT_TEMPLATE, None, "<|im_start|>user\na", "<|endoftext|><|im_start|>user\na<|im_end|>"),
        (None, None, "<|im_start|>a", "<|endoftext|><|im_start|>a<|im_end|>"),
        ("{{ raise_exception('no') }}", None, "<|im_start|>a", "<|endoftext|><|im_start|>a<|im_end|>"),
    ],
)
def test_a_text_has_one_beginning_and_one_end(
    template: str | dict[str, str] | None, bos: str | None, text: str, expected: str
) -> None:
    """A second start is added neither to a text with its own nor to a rendered chat."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template, tokenizer.bos_token = template, bos
    encoded = encode(rows({"text": text}), tokenizer, max_length=100, document_start=START)
    assert [tokenizer.decode(row["input_ids"]) for row in encoded] == [expected]


@pytest.mark.parametrize("prompt", ["2+2=", "<|endoftext|>2+2="])
def test_a_prompt_with_its_own_start_gets_no_second_one(prompt: str) -> None:
    tokenizer = make_tokenizer()
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A <|im_end|>", special_tokens=[("<|endoftext|>", 0), ("<|im_end|>", 2)]
    )
    encoded = encode(rows({"prompt": prompt, "completion": "4<|im_end|>"}), tokenizer, max_length=99, document_start=0)
    assert tokenizer.decode(encoded[0]["input_ids"]) == "<|endoftext|>2+2=4<|im_end|>"
    assert trained(tokenizer, encoded[0]) == "4<|im_end|>"


def test_rows_of_one_length_have_no_added_end(tokenizer: PreTrainedTokenizerFast) -> None:
    assert text_rows(["abcdef"], tokenizer, tokens=None, length=3).tolist() == [
        [0, *tokenizer(piece)["input_ids"]] for piece in ("abc", "def")
    ]
    with pytest.raises(ConfigError, match="has 7 tokens"):
        text_rows(["abcdef"], tokenizer, tokens=None, length=7)
    assert text_rows(["<|endoftext|>abc"], tokenizer, tokens=None, length=3)[:, 0].tolist() == [0]


def test_only_the_completion_and_the_end_are_trained_on(tokenizer: PreTrainedTokenizerFast) -> None:
    encoded = encode(rows({"prompt": "2+2=", "completion": "4"}), tokenizer, max_length=16, document_start=START)
    assert tokenizer.decode(encoded[0]["input_ids"]) == "2+2=4<|im_end|>"
    assert trained(tokenizer, encoded[0]) == "4<|im_end|>"
    assert_aligned(encoded[0])


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """`a` and `b` merge to `ab`; no special tokens at all: neither BOS nor EOS nor padding."""
    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_a_token_across_the_boundary_belongs_to_the_completion() -> None:
    encoded = encode(rows({"prompt": "ca", "completion": "bc"}), merging_tokenizer(), max_length=8, document_start=None)
    assert encoded[0]["input_ids"] == [2, 3, 2]
    assert encoded[0]["labels"] == [-100, 3, 2]


def test_a_text_needs_no_special_tokens() -> None:
    encoded = encode(rows({"text": "abc"}), merging_tokenizer(), max_length=8, document_start=None)
    assert encoded[0]["input_ids"] == [3, 2]


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, MARKED_TEMPLATE])
def test_answers_and_their_ends_are_trained_on_and_nothing_else(template: str) -> None:
    tokenizer = make_tokenizer(template)
    encoded = encode(rows({"messages": TWO_ANSWERS}), tokenizer, max_length=200, document_start=START)
    rendered = tokenizer.apply_chat_template(TWO_ANSWERS, tokenize=True, return_dict=True)["input_ids"]
    assert encoded[0]["input_ids"] == rendered
    assert trained(tokenizer, encoded[0]) == "héllo\n<|im_end|>yes<|im_end|>"
    assert_aligned(encoded[0])


def test_a_line_break_after_an_answer_is_its_end_where_there_is_no_token_for_it() -> None:
    tokenizer = make_tokenizer(
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    encoded = encode(rows({"messages": TWO_ANSWERS}), tokenizer, max_length=200, document_start=None)
    assert trained(tokenizer, encoded[0]) == "héllo\n\nyes\n"


def test_an_answer_that_is_rewritten_once_the_chat_goes_on_gets_a_row_of_its_own() -> None:
    tokenizer = make_tokenizer(REWRITING_TEMPLATE)
    both = encode(rows({"messages": TWO_ANSWERS}), tokenizer, max_length=200, document_start=None)
    assert [trained(tokenizer, row) for row in both] == [
        "<think></think>héllo\n<|im_end|>",
        "<think></think>yes<|im_end|>",
    ]
    rendered = [tokenizer.apply_chat_template(TWO_ANSWERS[:turns], tokenize=False) for turns in (3, 5)]
    assert [tokenizer.decode(row["input_ids"]) for row in both] == rendered
    single = encode(rows({"messages": TWO_ANSWERS[:3]}), tokenizer, max_length=200, document_start=None)
    assert trained(tokenizer, single[0]) == "<think></think>héllo\n<|im_end|>"


def test_chats_need_a_template() -> None:
    with pytest.raises(ConfigError, match="no chat template"):
        encode(rows({"messages": TWO_ANSWERS}), make_tokenizer(None), max_length=200, document_start=None)


def test_a_chat_that_the_template_refuses_is_told_by_name() -> None:
    tokenizer = make_tokenizer("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(SourceError, match="d0 does not fit the chat template: roles must alternate"):
        encode(rows({"messages": TWO_ANSWERS}), tokenizer, max_length=200, document_start=None)


def test_a_chat_that_starts_with_an_answer_is_told_by_name(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(SourceError, match="d0 starts with an assistant turn"):
        encode(rows({"messages": TWO_ANSWERS[2:3]}), tokenizer, max_length=200, document_start=None)


def test_rows_that_are_too_long_or_without_loss_are_left_out_and_counted(
    tokenizer: PreTrainedTokenizerFast, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = [{"role": "user", "content": "anyone?"}]
    long_chat = [*TWO_ANSWERS[:2], {"role": "assistant", "content": "x" * 300}]
    chats = rows({"messages": TWO_ANSWERS}, {"messages": questions}, {"messages": long_chat})
    encoded = encode(chats, tokenizer, max_length=200, document_start=None)
    assert list(encoded["document"]) == ["d0"]
    said = capsys.readouterr().err
    assert "left out 1 of 3 rows: longer than the context of 200 tokens" in said
    assert "left out 1 of 3 documents: no token to predict" in said


def test_when_every_row_is_too_long_the_needed_context_is_told(tokenizer: PreTrainedTokenizerFast) -> None:
    completions = rows({"prompt": "p" * 10, "completion": "c"}, {"prompt": "p" * 20, "completion": "c"})
    with pytest.raises(SourceError, match="every row is longer than the context of 8 tokens") as caught:
        encode(completions, tokenizer, max_length=8, document_start=None)
    assert caught.value.fix == "raise --max-length to at least 12 (the longest row needs 22)"
    assert len(encode(completions, tokenizer, max_length=12, document_start=None)) == 1


@pytest.mark.parametrize("text", ["", "a"])
def test_documents_with_nothing_to_predict_are_an_error(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    with pytest.raises(SourceError, match="no document has a token to predict"):
        encode(rows({"text": text}), tokenizer, max_length=8, document_start=None, append_eos=False)


def test_a_context_of_one_token_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ConfigError, match="nothing to predict"):
        encode(rows({"text": "abc"}), tokenizer, max_length=1, document_start=None)


def test_encoding_twice_gives_the_same(tokenizer: PreTrainedTokenizerFast) -> None:
    documents = rows({"text": "some text"}, {"text": "other text"})
    first = encode(documents, tokenizer, max_length=4, document_start=START)
    assert first.to_dict() == encode(documents, tokenizer, max_length=4, document_start=START).to_dict()


@pytest.fixture
def texts(tmp_path: Path) -> str:
    """Twelve documents, the longer the later, of one byte and so one token a character."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number:02d}.txt").write_text(chr(97 + number) * (5 * number + 3))
    return str(folder)


def test_text_is_cut_by_document_in_random_order(texts: str, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = make_tokenizer()
    tokens_RT1 = text_rows(texts, tokenizer, tokens=10**6, length=12)
    whole = {chr(97 + number): (5 * number + 3) // 12 for number in range(12)}
    assert tokens_RT1.shape == (sum(whole.values()), 12 + 1)
    assert f"gives {len(tokens_RT1)} rows of 12 tokens, fewer than the 83334 asked for" in capsys.readouterr().err
    assert (tokens_RT1[:, 0] == 0).all()
    decoded = [tokenizer.decode(row[1:]) for row in tokens_RT1.tolist()]
    order = list(dict.fromkeys(row[0] for row in decoded))
    assert decoded == [letter * 12 for letter in order for _ in range(whole[letter])], "documents stay together"
    assert order != sorted(order)
    assert torch.equal(text_rows(texts, tokenizer, tokens=49, length=12), tokens_RT1[:5])
    assert torch.equal(text_rows(texts, tokenizer, tokens=48, length=12), tokens_RT1[:4])
    assert capsys.readouterr().err == ""
    assert not torch.equal(text_rows(texts, tokenizer, tokens=10**6, length=12, seed=1), tokens_RT1)
    named = text_rows(texts, tokenizer, tokens=12, length=12, start="<|im_end|>")
    assert named[0, 0] == 2


def test_text_that_gives_no_rows_is_refused(texts: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no document of .* has 99 tokens"):
        text_rows(texts, make_tokenizer(), tokens=100, length=99)
    with pytest.raises(SourceNotFound):
        text_rows("nowhere.txt", make_tokenizer(), tokens=100, length=12)
    chats = tmp_path / "chats.jsonl"
    chats.write_text(json.dumps({"prompt": "a" * 40, "completion": "b"}) + "\n")
    with pytest.raises(ConfigError, match="documents of prompt and completion cannot be cut"):
        text_rows(str(chats), make_tokenizer(), tokens=12, length=12)
