"""A tiny chat model and 64 chats, written to a folder: python tests/hosts/fixture.py FOLDER."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.helpers.models import make_model, make_tokenizer


def main(folder: Path) -> None:
    """Write model/, chats.jsonl and, as LLaMA-Factory wants it, dataset_info.json."""
    make_model().save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"What is {number} plus {number + 1}?"},
                {"role": "assistant", "content": f"It is {2 * number + 1}."},
            ]
        }
        for number in range(64)
    ]
    (folder / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats), encoding="utf-8")
    pairs = [{**chat, "rejected_response": "No."} for chat in chats]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    layout = {"file_name": "chats.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
    (folder / "dataset_info.json").write_text(json.dumps({"chats": layout}), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
