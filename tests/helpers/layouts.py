"""Layouts of rows that people have: what each is read as, or why it is refused; the page that says so.

`python -m tests.helpers.layouts` writes docs/data-layouts.md.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keeptune.data.messages import unpack
from keeptune.data.rows import checked
from keeptune.errors import SourceError
from keeptune.storage import write_text

PAGE = Path(__file__).parents[2] / "docs" / "data-layouts.md"

HI = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
SAID = {"role": "system", "content": "be brief"}
OLD = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
READ: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
    ({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}, HI),
    ({"conversations": HI, "system": "be brief"}, [SAID, *HI]),
    ({"conversation": HI}, HI),
    ({"messages": json.dumps(HI), "system": ""}, HI),
    ({"messages": HI, "system_prompt": "be brief"}, [SAID, *HI]),
    ({"messages": [SAID, *HI], "system": "be brief"}, [SAID, *HI]),
    ({"instruction": "hi", "input": "", "output": "hello"}, HI),
    ({"instruction": "say", "input": "hello", "output": "yes"}, [
        {"role": "user", "content": "say\nhello"}, {"role": "assistant", "content": "yes"}]),
    ({"instruction": "hi", "output": "hello", "history": [["a", "b"]], "system": "be brief"}, [SAID, *OLD, *HI]),
    ({"instruction": "hi", "context": "", "response": "hello", "category": "chat"}, HI),
    ({"question": "hi", "answer": "hello"}, HI),
    ({"query": "hi", "response": "hello", "history": [["a", "b"]]}, [*OLD, *HI]),
    ({"prompt": "hi", "response": "hello"}, HI),
    ({"prompt": HI[:1], "completion": HI[1:]}, HI),
    ({"prompt": "hi", "completion": HI[1:]}, HI),
    ({"prompt": [*OLD, HI[0]], "completion": "hello"}, [OLD[0], {**OLD[1], "train": False}, *HI]),
    ({"messages": HI, "weight": 0}, [HI[0], {**HI[1], "train": False}]),
]  # fmt: skip
PLAIN: list[dict[str, Any]] = [{"text": "a document"}, {"prompt": "2+2=", "completion": "4"}]
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"prompt": "a", "chosen": "b", "rejected": "c"}, "has chosen and rejected, a pair for DPO"),
    ({"chosen": HI, "rejected": HI}, "a pair for DPO"),
    ({"conversations": HI[:1], "chosen": HI[1], "rejected": HI[1]}, "a pair for DPO"),
    ({"messages": HI[:1], "chosen": HI[1:], "rejected": HI[1:]}, "a pair for DPO"),
    ({"messages": HI, "rejected_response": "no"}, "has rejected_response, a pair for DPO"),
    ({"prompt": "a", "completion": "b", "label": True}, "whether the completion is wanted"),
    ({"messages": HI, "images": ["a.png"]}, "has the column images, and keeptune reads text only"),
    ({"text": "a", "image": {"bytes": "x"}}, "has the column image"),
    ({"prompt": "a", "completion": "b", "system": "c"}, "has the column system, for which plain text has no place"),
    ({"prompt": "a", "completion": "b", "tools": [{"name": "f"}]}, "has the column tools"),
    ({"text": "a", "weight": 0}, "a flag that takes its loss away"),
    ({"text": "a", "weight": 0.5}, "weight is 0.5"),
    ({"messages": HI, "system": ["a"]}, "system column is not one text"),
    ({"messages": [SAID, *HI], "system": "other"}, "a system column and another system message"),
    ({"messages": HI, "tools": "f"}, "tools is text that is not JSON"),
    ({"question": "a", "answer": 4}, "answer is int, not text"),
    ({"instruction": "a", "output": "b", "history": ["a"]}, "history is not a list of pairs"),
    ({"conversations": []}, "conversations is not a list of turns"),
]


def outcome(row: dict[str, Any]) -> str:
    """What a row is read as, in words."""
    try:
        read = checked(row, "row 1")
    except SourceError as error:
        return f"refused: {error.what.removeprefix('row 1').lstrip(': ')} → {error.fix}"
    if "messages" not in read:
        return "plain text: " + ", ".join(read)
    said = [
        f"{turn['role']}: {turn['content']}" + " (no loss)" * (not turn.get("train", True))
        for turn in unpack(read["messages"])
    ]
    return "chat: " + " · ".join(said).replace("\n", "⏎")


def page() -> str:
    """The page."""
    lines = [
        "# Layouts of rows",
        "",
        "What a row is read as. If it has the columns of several layouts, `messages` goes before `prompt` and",
        "`completion`, these before `text`, and these before the rest. Questions and answers are rendered by the chat",
        "template ([which tokens bear loss](chat-templates.md)). Other columns are counted and logged. Written by",
        "`make templates`; a test holds it equal.",
        "",
        "| row | outcome |",
        "|---|---|",
    ]
    for row in [*PLAIN, *(row for row, _ in READ), *(row for row, _ in REFUSED)]:
        lines.append(f"| `{json.dumps(row, ensure_ascii=False)}` | {outcome(row)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_text(PAGE, page())
