"""Local stand-ins for the data sets of TRL's own tests: a folder each, with a configuration for each layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

_ROWS = 19  # 17 to train on, which some tests count, and two held out


def make_data(folder: Path) -> None:
    """The data sets, a folder each, with a configuration for each layout."""
    pairs = [(f"What is {number} plus {number}?", f"It is {2 * number}, of course.") for number in range(_ROWS)]
    user = [[{"role": "user", "content": question}] for question, _ in pairs]
    assistant = [[{"role": "assistant", "content": answer}] for _, answer in pairs]
    chats = [{"messages": asked + told} for asked, told in zip(user, assistant, strict=True)]
    completions = [{"prompt": asked, "completion": told} for asked, told in zip(user, assistant, strict=True)]
    _save_data(
        folder / "trl-internal-testing" / "zen",
        {
            # So short that the rows to train on fill three packed ones of 64 tokens, as TRL's own do.
            "standard_language_modeling": [{"text": f"{number}+{number}={2 * number}."} for number in range(_ROWS)],
            "standard_prompt_completion": [
                {"prompt": question, "completion": f" {answer}"} for question, answer in pairs
            ],
            "standard_implicit_prompt_preference": [{"chosen": q + a, "rejected": q + "No."} for q, a in pairs],
            "conversational_language_modeling": chats,
            "conversational_prompt_completion": completions,
        },
    )
    thinking = [{**told[0], "thinking": "Add the two."} for told in assistant]
    thoughts = list(zip(user, thinking, strict=True))
    harmony = {"reasoning_effort": "low", "model_identity": "You are a calculator."}
    _save_data(
        folder / "trl-internal-testing" / "harmony",
        {
            "language_modeling": [{"messages": [*u, t], **harmony} for u, t in thoughts],
            "prompt_completion": [
                {"prompt": u, "completion": [t], **harmony} for u, t in zip(user, thinking, strict=True)
            ],
        },
    )
    _save_data(folder / "trl-internal-testing" / "toolcall", {"language_modeling": [_tool_call(n) for n in range(8)]})
    _save_data(folder / "trl-internal-testing" / "dolly-chatml-sft", {"default": chats})
    _save_data(folder / "stanfordnlp" / "imdb", {"plain_text": [{"text": f"{q} {a}"} for q, a in pairs * 10]})
    _save_images(folder / "trl-internal-testing" / "zen-image", user, assistant)
    _save_many_images(folder / "trl-internal-testing" / "zen-multi-image", pairs)


def _tool_call(number: int) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "double", "description": "Doubles.", "parameters": parameters}}
    call = {"type": "function", "function": {"name": "double", "arguments": {"a": number}}}
    messages = [
        {"role": "user", "content": f"Double {number}."},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "name": "double", "content": str(2 * number)},
        {"role": "assistant", "content": f"It is {2 * number}."},
    ]
    return {"messages": messages, "tools": json.dumps([tool])}


def _save_data(folder: Path, layouts: dict[str, list[dict[str, Any]]]) -> None:
    """jsonl files and a card that names them, train and test."""
    folder.mkdir(parents=True, exist_ok=True)
    card = ["---", "configs:"]
    for layout, rows in layouts.items():
        card += [f"- config_name: {layout}", "  data_files:"]
        for split, part in {"train": rows[2:], "test": rows[:2]}.items():
            file = f"{layout}-{split}.jsonl"
            card += [f"  - split: {split}", f"    path: {file}"]
            (folder / file).write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    (folder / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")


def _save_images(folder: Path, user: list[Any], assistant: list[Any]) -> None:
    """Chats with a picture each."""
    message = List({"role": Value("string"), "content": Value("string")})
    layouts = {
        "conversational_language_modeling": {"messages": [u + a for u, a in zip(user, assistant, strict=True)]},
        "conversational_prompt_completion": {"prompt": user, "completion": assistant},
    }
    _save_parquet(folder, layouts, message, [_pictures(1, index) for index in range(len(user))])


def _save_many_images(folder: Path, pairs: list[tuple[str, str]]) -> None:
    """Chats with no picture, one, two or three, before and after the words."""
    part = List({"type": Value("string"), "text": Value("string")})
    image = {"type": "image", "text": None}
    prompts, pictures = [], []
    for index, (question, _) in enumerate(pairs):
        before, after = index % 3, index % 2
        content = [image] * before + [{"type": "text", "text": question}] + [image] * after
        prompts.append([{"role": "user", "content": content}])
        pictures.append(_pictures(before + after, index))
    told = [[{"role": "assistant", "content": [{"type": "text", "text": answer}]}] for _, answer in pairs]
    layouts = {"conversational_prompt_completion": {"prompt": prompts, "completion": told}}
    _save_parquet(folder, layouts, List({"role": Value("string"), "content": part}), pictures)


def _pictures(count: int, shade: int) -> list[Image.Image]:
    return [Image.new("RGB", (40, 30), (8 * shade, 90, 200 - 8 * shade)) for _ in range(count)]


def _save_parquet(folder: Path, layouts: dict[str, dict[str, Any]], message: Any, pictures: list[Any]) -> None:
    """A file for each layout, its pictures in the column `images`, and a card that names them."""
    folder.mkdir(parents=True, exist_ok=True)
    card = ["---", "configs:"]
    for layout, columns in layouts.items():
        features = Features(dict.fromkeys(columns, message) | {"images": List(ImageFeature())})
        file = f"{layout}-train.parquet"
        Dataset.from_dict({**columns, "images": pictures}, features=features).to_parquet(folder / file)
        card += [f"- config_name: {layout}", "  data_files:", "  - split: train", f"    path: {file}"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")
