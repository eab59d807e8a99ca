"""Chat templates of the world, tokenizers that know their tokens, and the table of what is trained on with each.

`python -m tests.helpers.chats` writes docs/chat-templates.md and docs/chat-templates.json.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any

import trl
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from keeptune.data.chat import Chats
from keeptune.data.encode import encode
from keeptune.data.rows import checked
from keeptune.errors import KeeptuneError
from keeptune.storage import write_text
from tests.helpers.models import make_tokenizer

DOCS = Path(__file__).parents[2] / "docs"
TABLE = DOCS / "chat-templates.json"

ASK_ONE, ASK_TWO = {"role": "user", "content": "Ask one?"}, {"role": "user", "content": "Ask two?"}
SINGLE = [ASK_ONE, {"role": "assistant", "content": "Reply one."}]
MULTI = [*SINGLE, ASK_TWO, {"role": "assistant", "content": "Reply two."}]
SYSTEM = [{"role": "system", "content": "Be brief."}, *MULTI]
REASONED = [
    ASK_ONE,
    {"role": "assistant", "content": "Reply one.", "reasoning_content": "Thought one."},
    ASK_TWO,
    {"role": "assistant", "content": "Reply two.", "reasoning_content": "Thought two."},
]
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
TOOLS = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "tool_call_id": "abcdefghi", "content": "Sunny today"},
    {"role": "assistant", "content": "It is sunny."},
]
CHATS = {"single": SINGLE, "multi": MULTI, "system": SYSTEM, "reasoning": REASONED, "tools": TOOLS}

_LOOP = "{% for m in messages %}"
_END = "{% endif %}{% endfor %}"
_ASK = "{% if add_generation_prompt %}"
_USER, _ANSWER = "{% if m.role == 'user' %}", "{% elif m.role == 'assistant' %}"
_SAID = "{% set said = messages[0].content if messages[0].role == 'system' else '' %}"
_CHATML = "<|im_start|>{{ m.role }}\n"
_ASK_CHATML = _ASK + "<|im_start|>assistant\n{% endif %}"
# Mechanisms of published templates that TRL has no copy of, each in its fewest words.
PROBES = {
    "mistral v0.3 ([INST], closed by EOS)": (
        "{{ bos_token }}" + _LOOP + _USER + "[INST] {{ m.content }}[/INST]" + _ANSWER + " {{ m.content }}</s>"
        "{% else %}{{ raise_exception('only user and assistant') }}" + _END
    ),
    "mistral nemo (system in the last turn, if it is the user's)": (
        "{{ bos_token }}" + _SAID + _LOOP + _USER + "[INST]{% if loop.last and said %}{{ said }}\n\n{% endif %}"
        "{{ m.content }}[/INST]" + _ANSWER + "{{ m.content }}</s>" + _END
    ),
    "phi-4 (closed, and EOS after the chat)": (
        _LOOP + "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}" + _ASK + "<|assistant|>{% else %}<|endoftext|>"
        "{% endif %}"
    ),
    "llama 4 (content as text or parts)": (
        "<|begin_of_text|>" + _LOOP + "<|header_start|>{{ m.role }}<|header_end|>\n\n{% if m.content is string %}"
        "{{ m.content }}{% else %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}<|eot|>{% endfor %}"
        + _ASK + "<|header_start|>assistant<|header_end|>\n\n{% endif %}"
    ),
    "smollm3 (flags and date in the system turn, marked)": (
        _SAID + "<|im_start|>system\nToday: {{ strftime_now('%d %B %Y') }}\nMode: {{ '/no_think' if '/no_think' in "
        "said else '/think' }}\n{{ said.replace('/no_think', '').rstrip() }}<|im_end|>\n" + _LOOP + _USER
        + _CHATML + "{{ m.content }}<|im_end|>\n" + _ANSWER + _CHATML
        + "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n" + _END + _ASK_CHATML
    ),
    "glm 5 (no end-of-turn token, earlier thoughts dropped)": (
        "[gMASK]<sop>{% set last = messages | length - 1 %}" + _LOOP + "<|{{ m.role }}|>{% if m.role == 'assistant' %}"
        "{% if loop.index0 == last %}<think>{{ m.reasoning_content or '' }}{% endif %}</think>{% endif %}"
        "{{ m.content }}{% endfor %}" + _ASK + "<|assistant|><think>{% endif %}"
    ),
    "deepseek r1 (drops all reasoning in the content)": (
        "{{ bos_token }}" + _LOOP + _USER + "<｜User｜>{{ m.content }}" + _ANSWER
        + "<｜Assistant｜>{{ m.content.split('</think>')[-1] }}<｜end▁of▁sentence｜>{% else %}{{ m.content }}" + _END
        + _ASK + "<｜Assistant｜><think>\n{% endif %}"
    ),
    "deepseek coder (opens an answer after every chat)": (
        _LOOP + "### {{ m.role }}:\n{{ m.content }}\n{% if m.role == 'assistant' %}<|EOT|>\n" + _END
        + "### assistant:\n"
    ),
    "chatml with the end outside of its marks": (
        _LOOP + _CHATML + "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}"
        "{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}" + _ASK_CHATML
    ),
    "vision (content as parts only)": (
        _LOOP + "{{ m.role | capitalize }}: {% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}" + _END
        + "<end_of_utterance>\n{% endfor %}" + _ASK + "Assistant:{% endif %}"
    ),
}  # fmt: skip

_TOKENS = re.compile(r"<[|｜][^<>|｜\s{]+[|｜]>|<\|?/?[a-z_]+\|?>|\[/?[A-Z_]+\]|</?s>|\[gMASK\]")
_ENDS = (
    "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<turn|>", "<|end|>", "<|END_OF_TURN_TOKEN|>", "<｜end▁of▁sentence｜>",
    "</s>", "<end_of_utterance>", "<|return|>",
)  # fmt: skip
# Published as ordinary tokens, or written as text.
_NOT_SPECIAL = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tools>", "</tools>", "<tool_response>")


def published() -> dict[str, str]:
    """The published templates that the installed TRL ships, by name."""
    files = (Path(trl.__file__).parent / "chat_templates").glob("*.jinja")
    return {
        file.stem: file.read_text(encoding="utf-8") for file in sorted(files) if not file.stem.endswith("_training")
    }


def template_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """A byte tokenizer with the tokens of a template, all of them special but those of reasoning and tools."""
    tokenizer = make_tokenizer(template)
    names = set(_TOKENS.findall(template)) - set(_NOT_SPECIAL)
    names |= {"<|user|>", "<|assistant|>", "<|system|>"} if "<|{{ m.role }}|>" in template else set()
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(names)})
    tokenizer.eos_token = next((end for end in _ENDS if end in template), "<|endoftext|>")
    tokenizer.bos_token = "<bos>" if "<bos>" in names else "<|begin_of_text|>" if "<|begin_of_text|>" in names else None
    if "bos_token" in template and tokenizer.bos_token is None:
        tokenizer.add_special_tokens({"bos_token": "<s>"})
    return tokenizer


def documents(*chats: dict[str, Any] | list[dict[str, Any]]) -> Dataset:
    """Chats as `load_documents` gives them."""
    rows = [checked(chat if isinstance(chat, dict) else {"messages": chat}, "row") for chat in chats]
    return Dataset.from_list([{**row, "document": f"d{number}"} for number, row in enumerate(rows)])


def rows(tokenizer: PreTrainedTokenizerFast, *chats: Any, **options: Any) -> list[dict[str, Any]]:
    """The token rows of chats."""
    given: dict[str, Any] = {"max_length": 100_000, "document_start": None, **options}
    return list(encode(documents(*chats), tokenizer, **given))


def spans(tokenizer: PreTrainedTokenizerFast, labels: list[int]) -> list[str]:
    """The texts that bear loss, one for each run of tokens."""
    runs: list[list[int]] = [[]]
    for label in labels:
        if label == -100:
            runs.append([])
        else:
            runs[-1].append(label)
    return [tokenizer.decode(run) for run in runs if run]


def trained_on(template: str) -> dict[str, list[list[str]] | str]:
    """By kind of chat: the texts that bear loss in each row, or why the chat is refused."""
    tokenizer = template_tokenizer(template)
    chats, table = Chats(tokenizer), {}
    for kind, chat in CHATS.items():
        try:
            found = list(chats({**checked({"messages": chat}, "row"), "document": "d0"}))
            table[kind] = [spans(tokenizer, labels) for _, labels in found]
        except KeeptuneError as error:
            table[kind] = error.what
    return table


def measured() -> dict[str, Any]:
    """The whole table."""
    table = {name: trained_on(template) for name, template in {**published(), **PROBES}.items()}
    return {"trl": importlib.metadata.version("trl"), "templates": table}


def page(table: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        "# Chat templates: which tokens bear loss",
        "",
        f"Every template that TRL {table['trl']} ships, and mechanisms of others in their fewest words (the last ten).",
        "Each chat is encoded as `keeptune tune` does it. A span is a run of tokens that bear loss; `⏎`: a line break.",
        "Where a template rewrites an answer once the chat goes on, and TRL has no version of it that does not,",
        "each such answer ends a row of its own; rows are separated by `/`. Written by `make templates`, held by",
        "`tests/unit/data/test_chat.py`; raw: [chat-templates.json](chat-templates.json).",
        "",
        "| template | single-turn | multi-turn | with a system turn | with reasoning | tool call |",
        "|---|---|---|---|---|---|",
    ]
    for name, kinds in table["templates"].items():
        cells = [_cell(kinds[kind]) for kind in CHATS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(found: list[list[str]] | str) -> str:
    if isinstance(found, str):
        return "refused: " + found.removeprefix("d0: ").replace("d0 ", "").replace("|", "\\|").replace("\n", " ")
    shown = [" ".join("`" + span.replace("\n", "⏎").replace("|", "\\|") + "`" for span in row) for row in found]
    return " / ".join(shown)


def main() -> None:
    """Write the table."""
    table = measured()
    write_text(TABLE, json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    write_text(TABLE.with_suffix(".md"), page(table))


if __name__ == "__main__":
    main()
