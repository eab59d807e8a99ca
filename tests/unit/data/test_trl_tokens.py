"""The tokens of TRL's own SFTTrainer: the same ids, and the same labels where TRL masks what is not an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast
from trl import SFTTrainer

from keeptune.data.encode import encode
from tests.helpers.chats import MULTI, TOOLS, published, template_tokenizer
from tests.helpers.models import CHAT_TEMPLATE, make_model, make_tokenizer
from tests.helpers.training import config

MARKED = CHAT_TEMPLATE.replace(
    "{{ m['content'] }}<|im_end|>\n",
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m['content'] }}<|im_end|>{% endif %}{{ '\\n' }}",
)


def with_bos() -> PreTrainedTokenizerFast:
    """A tokenizer that starts every input with its BOS, as Llama's do."""
    tokenizer = make_tokenizer()
    tokenizer.bos_token = "<|endoftext|>"
    start = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    tokenizer.backend_tokenizer.post_processor = start
    return tokenizer


def ours(tokenizer: PreTrainedTokenizerFast, rows: list[dict[str, Any]], start: int | None) -> list[dict[str, Any]]:
    named = Dataset.from_list([{**row, "document": f"d{number}"} for number, row in enumerate(rows)])
    encoded = encode(named, tokenizer, max_length=1000, document_start=start)
    return [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in encoded]


def theirs(
    folder: Path, tokenizer: PreTrainedTokenizerFast, rows: list[dict[str, Any]], **settings: Any
) -> list[dict[str, Any]]:
    args = config(folder, max_length=None, **settings)
    trainer = SFTTrainer(
        model=make_model(vocab=len(tokenizer)), args=args, train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )  # fmt: skip
    prepared = list(trainer.train_dataset)
    batches = [trainer.data_collator([row]) for row in prepared]
    return [{name: batch[name][0].tolist() for name in ("input_ids", "labels")} for batch in batches]


@pytest.mark.parametrize("made", [make_tokenizer, with_bos])
@pytest.mark.parametrize(
    "rows",
    [
        [{"prompt": "2+2=", "completion": "4"}, {"prompt": "say", "completion": " yes<|im_end|>"}],
        [{"text": "one document"}, {"text": "closed by itself<|im_end|>"}],
    ],
    ids=["prompt and completion", "text"],
)
def test_plain_text_is_that_of_trl(tmp_path: Path, rows: list[dict[str, Any]], made: Any) -> None:
    start = 0 if made is with_bos else None
    assert ours(made(), rows, start) == theirs(tmp_path, made(), rows)


@pytest.mark.parametrize("made", [make_tokenizer, with_bos])
def test_chats_are_those_of_trl(tmp_path: Path, made: Any) -> None:
    tokenizer, rows = made(), [{"messages": MULTI}, {"messages": MULTI[:2]}]
    tokenizer.chat_template = MARKED
    assert ours(tokenizer, rows, 0) == theirs(tmp_path, tokenizer, rows, assistant_only_loss=True)
    plain = make_tokenizer()
    same = zip(ours(plain, rows, 0), ours(tokenizer, rows, 0), strict=True)
    assert all(left == right for left, right in same), "marked by the author or found by keeptune"


def test_tools_reach_the_template_as_in_trl(tmp_path: Path) -> None:
    tokenizer = template_tokenizer(published()["qwen2_5"])
    tools = '[{"type": "function", "function": {"name": "weather", "parameters": {}}}]'
    rows = [{"messages": TOOLS, "tools": tools}]
    assert [row["input_ids"] for row in ours(tokenizer, rows, 0)] == [
        row["input_ids"] for row in theirs(tmp_path, tokenizer, rows)
    ]


def test_a_prompt_and_a_completion_of_messages_are_those_of_trl_but_for_the_line_break_after_the_end(
    tmp_path: Path,
) -> None:
    rows = [{"prompt": MULTI[:3], "completion": MULTI[3:]}]
    (own,), (trl,) = ours(make_tokenizer(), rows, 0), theirs(tmp_path, make_tokenizer(), rows)
    assert own["input_ids"] == trl["input_ids"]
    assert own["labels"] == [*trl["labels"][:-1], -100]
    assert make_tokenizer().decode(trl["labels"][-1:]) == "\n"
