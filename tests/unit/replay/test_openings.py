"""A chat's opening is what the template puts before the user's words, and a pool of chats starts every row with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from keeptune.data.templates import select_template
from keeptune.errors import ConfigError, OutputExists
from keeptune.replay.generate import sample_pool
from keeptune.replay.openings import chat_opening
from keeptune.replay.pool import ReplayPool
from tests.helpers.models import CHAT_TEMPLATE, make_tokenizer

SYSTEM = "<|im_start|>system\nBe kind.<|im_end|>\n"
USER = "<|im_start|>user\n"


def test_the_opening_ends_where_the_user_speaks(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.decode(chat_opening(tokenizer)) == USER
    spoken = make_tokenizer(SYSTEM + (tokenizer.chat_template or ""))
    assert spoken.decode(chat_opening(spoken)) == SYSTEM + USER


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (None, "no chat template"),
        ("{{ raise_exception('never') }}", "cannot render"),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "nothing before"),
        ("<|im_start|>{% for m in messages %}{{ m['content'][:3] }}{% endfor %}", "changes them"),
    ],
)
def test_a_template_without_an_opening_is_refused(template: str | None, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        chat_opening(make_tokenizer(template))


def test_one_of_several_templates_opens_chats(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = {"kind": SYSTEM + CHAT_TEMPLATE, "plain": CHAT_TEMPLATE}
    with pytest.raises(ConfigError, match="chat templates kind, plain, and none is the default"):
        chat_opening(tokenizer)
    select_template(tokenizer, "kind")
    assert tokenizer.decode(chat_opening(tokenizer)) == SYSTEM + USER


def test_a_pool_of_chats(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    opening = chat_opening(tokenizer)
    pool = sample_pool(model, tokenizer, tmp_path, tokens=40, length=20, prompts="chat")
    assert pool.settings.prompts == "chat"
    for row in range(pool.rows):
        tokens = pool.tokens_of(row).tolist()
        assert tokens[: len(opening)] == opening
        assert len(tokens) == 21
    assert len({tuple(pool.tokens_of(row).tolist()) for row in range(pool.rows)}) == pool.rows
    assert ReplayPool.open(tmp_path).settings == pool.settings
    with pytest.raises(OutputExists, match="prompts"):
        sample_pool(model, tokenizer, tmp_path, tokens=40, length=20)
    with pytest.raises(ConfigError, match="opens with"):
        sample_pool(model, tokenizer, tmp_path / "short", tokens=40, length=len(opening) - 1, prompts="chat")
