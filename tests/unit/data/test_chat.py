"""Chats by every template that TRL ships and by the mechanisms of others: answers and their ends bear loss, once."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from keeptune.data.chat import Chats
from keeptune.data.rows import checked
from keeptune.data.templates import dated, on_day, own_template, select_template, training_template
from keeptune.errors import ConfigError, SourceError
from tests.helpers.chats import (
    ASK_ONE,
    MULTI,
    PROBES,
    REASONED,
    SINGLE,
    SYSTEM,
    TABLE,
    TOOLS,
    measured,
    page,
    published,
    rows,
    spans,
    template_tokenizer,
)  # fmt: skip
from tests.helpers.models import CHAT_TEMPLATE, make_tokenizer

QWEN3 = published()["qwen3"]
NEMO = PROBES["mistral nemo (system in the last turn, if it is the user's)"]
GLM = PROBES["glm 5 (no end-of-turn token, earlier thoughts dropped)"]
# Their authors wrote that they take no system message, or roles in turn only.
NO_SYSTEM = {"gemma", "mistral v0.3 ([INST], closed by EOS)"}


def weighed(*flags: dict[str, Any]) -> list[dict[str, Any]]:
    answers = iter(flags)
    return [{**turn, **next(answers, {})} if turn["role"] == "assistant" else turn for turn in MULTI]


def test_every_template_trains_each_answer_once_with_its_end_and_the_table_says_so() -> None:
    """The table that the docs show; what must hold of each template is asserted beside it."""
    table = measured()
    committed = json.loads(TABLE.read_text(encoding="utf-8"))
    assert TABLE.with_suffix(".md").read_text(encoding="utf-8") == page(committed)
    assert set(PROBES) < set(committed["templates"])
    assert len(committed["templates"]) >= 50
    for name, kinds in table["templates"].items():
        if table["trl"] == committed["trl"] or name in PROBES:
            assert kinds == committed["templates"][name], f"{name} changed: make templates"
        special = template_tokenizer({**published(), **PROBES}[name]).all_special_tokens
        for kind, answers in {"single": ["one"], "multi": ["one", "two"], "system": ["one", "two"]}.items():
            if kind == "system" and name in NO_SYSTEM:
                assert "does not fit" in kinds[kind]
                continue
            assert not isinstance(kinds[kind], str), f"{name}, {kind}: {kinds[kind]}"
            found = [span for row in kinds[kind] for span in row]
            assert len(found) == len(answers), f"{name}, {kind}"
            for span, answer in zip(found, answers, strict=True):
                assert f"Reply {answer}." in span, name
                assert any(span.rstrip().endswith(token) for token in special), f"{name}: {span!r} does not end"
                assert not any(words in span for words in ("Ask", "brief", "user\n", "<|User|>")), f"{name}: {span!r}"


HARD = [
    "<",
    "<b>",
    "assistant",
    "model",
    "A",
    "</s",
    "  spaced \n",
    "\n\nled",
    "{{ x }}",
    "ümläut 🙂",
    "Reply: user",
    "0",
]


@pytest.mark.parametrize(
    "name", [*PROBES, "qwen3", "gptoss", "gemma3", "phi3", "deepseekv3", "glm4moe", "nemotron_3_nano"]
)
def test_answers_that_look_like_headers_are_found(name: str) -> None:
    """The same text around each answer as around a plain one, and nothing of the user's."""
    template = {**published(), **PROBES}[name]
    tokenizer = template_tokenizer(template)
    chats = Chats(tokenizer)

    def found(turns: list[dict[str, Any]]) -> list[str]:
        document = {**checked({"messages": turns}, "row"), "document": "d0"}
        return ["".join(span.split()) for _, labels in chats(document) for span in spans(tokenizer, labels)]

    plain = found(MULTI)
    for number, hard in enumerate(HARD):
        asked = HARD[-number]
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": hard}]
        said = "".join(hard.split())
        assert found([*turns, *MULTI[2:]]) == [plain[0].replace("Replyone.", said), plain[1]], repr((asked, hard))
        assert found([*MULTI[:2], *turns]) == [plain[0], plain[1].replace("Replytwo.", said)], repr((asked, hard))


def test_what_follows_the_opening_bears_loss_and_the_opening_does_not() -> None:
    tokenizer = template_tokenizer(QWEN3)
    assert [spans(tokenizer, row["labels"]) for row in rows(tokenizer, SINGLE)] == [
        ["<think>\n\n</think>\n\nReply one.<|im_end|>"]
    ]
    without = {"messages": SINGLE, "chat_template_kwargs": {"enable_thinking": False}}
    assert [spans(tokenizer, row["labels"]) for row in rows(tokenizer, without)] == [["Reply one.<|im_end|>"]]


def test_a_training_template_of_trl_serves_where_the_own_one_rewrites_answers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tokenizer = template_tokenizer(QWEN3)
    (row,) = rows(tokenizer, REASONED)
    assert spans(tokenizer, row["labels"]) == [
        f"<think>\nThought {number}.\n</think>\n\nReply {number}.<|im_end|>\n" for number in ("one", "two")
    ]
    assert "TRL's training version of the chat template renders 1 of 1 chats" in capsys.readouterr().err
    assert tokenizer.chat_template == QWEN3, "the model keeps its own"


def test_without_a_version_by_trl_each_rewritten_answer_ends_a_row_as_the_model_would_see_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    template = QWEN3 + "{# changed, so that TRL does not know it #}"
    tokenizer = template_tokenizer(template)
    assert training_template(tokenizer, template) is None
    found = rows(tokenizer, REASONED)
    expected = [tokenizer.apply_chat_template(REASONED[:turns], tokenize=False) for turns in (2, 4)]
    assert [tokenizer.decode(row["input_ids"]) for row in found] == expected
    assert "1 of 1 chats are trained as several rows, each with an answer at its end: 2 rows" in capsys.readouterr().err


def test_a_system_message_that_only_the_opening_holds_is_in_every_row() -> None:
    tokenizer = template_tokenizer(NEMO)
    texts = [tokenizer.decode(row["input_ids"]) for row in rows(tokenizer, SYSTEM)]
    assert texts == [
        "<s>[INST]Be brief.\n\nAsk one?[/INST]Reply one.</s>",
        "<s>[INST]Ask one?[/INST]Reply one.</s>[INST]Be brief.\n\nAsk two?[/INST]Reply two.</s>",
    ]


@pytest.mark.parametrize(
    ("first", "second", "trained"),
    [
        ({}, {}, ["Reply one.<|im_end|>", "Reply two.<|im_end|>"]),
        ({"weight": 0}, {}, ["Reply two.<|im_end|>"]),
        ({}, {"train": False}, ["Reply one.<|im_end|>"]),
        ({"weight": 0.0}, {"weight": 1}, ["Reply two.<|im_end|>"]),
    ],
)
@pytest.mark.parametrize("template", [CHAT_TEMPLATE, PROBES["chatml with the end outside of its marks"]])
def test_turns_without_loss_are_read_and_not_trained(
    template: str, first: dict[str, Any], second: dict[str, Any], trained: list[str]
) -> None:
    tokenizer = make_tokenizer(template)
    (row,) = rows(tokenizer, weighed(first, second))
    assert spans(tokenizer, row["labels"]) == trained
    assert tokenizer.decode(row["input_ids"]) == tokenizer.apply_chat_template(MULTI, tokenize=False)


def test_a_chat_whose_turns_all_lack_loss_is_left_out_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(make_tokenizer(), MULTI, weighed({"weight": 0}, {"weight": 0}))
    assert len(found) == 1
    assert "left out 1 of 2 documents: no token to predict" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("template", "chat", "what"),
    [
        (CHAT_TEMPLATE, TOOLS, "leaves out a tool call of turn 2"),
        (CHAT_TEMPLATE, REASONED, "leaves out reasoning_content of turn 2"),
        (CHAT_TEMPLATE, {"messages": SINGLE, "tools": [{"name": "f"}]}, "does not read tools"),
        (CHAT_TEMPLATE.replace("m['content']", "m['content'][:3]"), SINGLE, "leaves out the content of turn 2"),
        (QWEN3, [{"role": "developer", "content": "Be kind."}, *SINGLE], r"leaves out turn 1 \(developer\)"),
        (published()["gemma"], SYSTEM, "does not fit the chat template: System role not supported"),
        (published()["llama3_1"], [*TOOLS[:1], {**TOOLS[1], "tool_calls": TOOLS[1]["tool_calls"] * 2}], "single tool"),
    ],
)
def test_what_the_template_drops_is_refused_by_its_turn(template: str, chat: Any, what: str) -> None:
    with pytest.raises((ConfigError, SourceError), match=what) as refused:
        rows(template_tokenizer(template), chat)
    assert "d0" in refused.value.what
    assert refused.value.fix


def test_keys_that_the_template_does_not_read_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    named = [{**ASK_ONE, "name": "Ann"}, SINGLE[1]]
    rows(make_tokenizer(), SINGLE, named, {"messages": SINGLE, "chat_template_kwargs": {"style": "x"}})
    said = capsys.readouterr().err
    assert "does not read name, which 1 of 3 chats give" in said
    assert "does not read style, which 1 of 3 chats give" in said
    reads = make_tokenizer(CHAT_TEMPLATE.replace("{{ m['role'] }}", "{{ m['role'] }}{{ m.name or '' }}"))
    assert "userAnn" in reads.decode(rows(reads, named)[0]["input_ids"])
    assert "does not read" not in capsys.readouterr().err


def test_tools_and_arguments_reach_the_template_as_it_reads_them() -> None:
    tokenizer = template_tokenizer(published()["qwen2_5"])
    as_json = [{**TOOLS[1], "tool_calls": json.dumps(TOOLS[1]["tool_calls"])}]
    flat = [{**TOOLS[1], "tool_calls": [{"name": "weather", "arguments": '{"city": "Paris"}'}], "content": None}]
    tools = [{"name": "weather", "parameters": {}}]
    texts = set()
    for call in (TOOLS[1:2], as_json, flat):
        chat = {"messages": [TOOLS[0], *call, *TOOLS[2:]], "tools": json.dumps(tools)}
        (row,) = rows(tokenizer, chat)
        texts.add(tokenizer.decode(row["input_ids"]))
    (text,) = texts
    assert '{"type": "function", "function": {"name": "weather", "parameters": {}}}' in text
    assert '{"name": "weather", "arguments": {"city": "Paris"}}' in text
    # DeepSeek joins arguments as strings.
    deepseek = template_tokenizer(published()["deepseekv3"])
    assert '{"city": "Paris"}' in deepseek.decode(rows(deepseek, TOOLS)[0]["input_ids"])


def test_no_answer_that_ends_is_one_warning(capsys: pytest.CaptureFixture[str]) -> None:
    open_ended = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    rows(make_tokenizer(open_ended + "{% if add_generation_prompt %}assistant: {% endif %}"), MULTI, SINGLE)
    assert capsys.readouterr().err.count("no answer ends in a special token") == 1
    rows(make_tokenizer(), MULTI, SINGLE)
    rows(template_tokenizer(GLM), MULTI)
    assert "no answer ends" not in capsys.readouterr().err


def test_one_of_several_templates(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    other = CHAT_TEMPLATE.replace("<|im_end|>\n", "<|im_end|>")
    tokenizer.chat_template = {"default": CHAT_TEMPLATE, "tight": other}
    assert tokenizer.decode(rows(tokenizer, SINGLE)[0]["input_ids"]).endswith("<|im_end|>\n")
    select_template(tokenizer, "tight")
    assert tokenizer.decode(rows(tokenizer, SINGLE)[0]["input_ids"]).endswith("one.<|im_end|>")
    assert tokenizer.chat_template == {"default": other, "tight": other}, "what was trained is the default"
    tokenizer.chat_template = {"rag": CHAT_TEMPLATE, "tight": other}
    with pytest.raises(ConfigError, match="chat templates rag, tight, and none is the default") as refused:
        rows(tokenizer, SINGLE)
    assert refused.value.fix == "name one: --chat-template rag"
    file = tmp_path / "mine.jinja"
    file.write_text(CHAT_TEMPLATE)
    select_template(tokenizer, str(file))
    assert own_template(tokenizer) == CHAT_TEMPLATE


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "no chat template called there.jinja, and there is no such file"),
        (b"{% for m in messages %}", "is not a Jinja template: Unexpected end of template"),
        (b"\xff\xfe", "is not a Jinja template"),
        (b"Hello", "reads no messages"),
    ],
)
def test_a_file_that_is_no_template_is_refused(tmp_path: Path, content: bytes | None, what: str) -> None:
    if content is not None:
        (tmp_path / "there.jinja").write_bytes(content)
    with pytest.raises(ConfigError, match=what):
        select_template(make_tokenizer(), "there.jinja" if content is None else str(tmp_path / "there.jinja"))


@pytest.mark.parametrize(
    ("call", "written"),
    [
        ("strftime_now('%Y-%m-%d')", "2024-05-06"),
        ('strftime_now("%d %b %Y")', "06 May 2024"),
        ("strftime_now( format='%H:%M' )", "00:00"),
        ("strftime_now('%Y') + 'x'", "2024x"),
        ("strftime_now('%d') if strftime_now is defined else ''", "06"),
    ],
)
def test_a_template_writes_the_date_of_the_run(call: str, written: str, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = make_tokenizer("{{ " + call + " }}\n" + CHAT_TEMPLATE)
    with on_day(date(2024, 5, 6)):
        (row,) = rows(tokenizer, SINGLE)
    assert tokenizer.decode(row["input_ids"]).startswith(f"{written}\n<|im_start|>")
    assert spans(tokenizer, row["labels"]) == spans(tokenizer, rows(make_tokenizer(), SINGLE)[0]["labels"])
    assert "a date into the chats, 2024-05-06; a resumed run keeps it" in capsys.readouterr().err


def test_a_date_whose_form_is_computed_is_said_not_to_be_kept(capsys: pytest.CaptureFixture[str]) -> None:
    computed = "{% set form = '%Y' %}{{ strftime_now(form) }}\n" + CHAT_TEMPLATE
    assert dated(computed) == computed
    rows(make_tokenizer(computed), SINGLE)
    assert "so another day gives other rows" in capsys.readouterr().err
