"""SmolLM2 that has forgotten, repaired: all weights as in the demo, a LoRA, and a tuning on chats.

A cell tunes the base without replay and with it, and repairs the first by every method. What a model kept is read on
documents that neither tuning nor repair saw: the task's, and WikiText-2 (without its file, Python's help).
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from torch import nn

from common.chat.instructed import FILES, base_of
from common.chat.tuned import settings_of
from common.grid import Cell, Row
from common.texts import source_of
from keeptune.audit.meter import Drift, measure
from keeptune.audit.texts import text_rows
from keeptune.data.documents import load_documents, split_documents
from keeptune.data.tokens import EncodedRow
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.runs.run import tune_or_resume
from keeptune.runs.settings import TuneSettings
from keeptune.runs.task_rows import task_rows
from repair.cells import cell_rows, repair_settings, repaired

__all__ = ["cell_rows", "run_cell"]


def run_cell(cell: Cell, home: Path) -> dict[str, Any]:
    """Tune without replay, tune with it, and repair the first."""
    plain, replayed = (run_settings(cell, home, name) for name in ("plain", "replay"))
    folders = [tune_or_resume(settings, label=Path(settings.out).name) for settings in (plain, replayed)]
    held_out = Reader(cell, plain)
    settings = repair_settings(cell, plain.model, folders[0], home / "repair")
    if cell["given"] == "data":
        settings = replace(settings, task_text=seen(plain, home / "task.jsonl"))
    rows: list[Row] = [{"candidate": "replay", **held_out.read(load_model(str(folders[1])))}]
    return {"readings": rows + repaired(settings, 1 - cell["undone"], held_out.read)}


def run_settings(cell: Cell, home: Path, name: str) -> TuneSettings:
    """The run without replay, or the one with it, which takes half as many steps again as in the demo."""
    own: dict[str, Any] = {"model": base_of(cell), "out": str(home / name)}
    if name == "plain":
        own["lambda_"] = 0.0
    else:
        own["steps"] = cell["steps"] * 3 // 2
    if cell["data"] == "chats":
        own["data"] = chats(home)
    return settings_of(cell, **own)


def chats(home: Path) -> str:
    """Chats about Python's help topics: a question by the topic's name, and its first paragraph as the answer."""
    file = home / "chats.jsonl"
    lines = []
    for name, text in sorted(topics.items()):
        turns = [("user", f"What does Python's help say about {name!r}?"), ("assistant", text.strip()[:600])]
        lines.append(json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]}))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


def seen(settings: TuneSettings, file: Path) -> str:
    """The documents that the run was trained on, as rows: the others stay held out."""
    train, _ = split_documents(load_documents(settings.data), settings.held_out, settings.seed)
    fields = [name for name in ("text", "prompt", "completion", "messages") if name in train.column_names]
    lines = [json.dumps({name: row[name] for name in fields}) for row in train]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


class Reader:
    """Loss and KL(base‖model) on held-out documents of the task and on old text."""

    def __init__(self, cell: Cell, settings: TuneSettings) -> None:
        self.base, tokenizer = load_model(settings.model), load_tokenizer(settings.model)
        self.task: list[EncodedRow] = list(task_rows(settings, tokenizer).held_out)
        file = os.environ.get(FILES["wikitext"])
        source = f"wikitext:{file}" if file else source_of("pydoc")
        how = {"docs": cell["documents"], "length": cell["max_length"], "windows": 1, "seed": 0}
        self.old = text_rows(source, self.base, tokenizer, Path(), **how)

    def read(self, model: nn.Module) -> dict[str, float]:
        """`new_loss`, `old_loss`, and `kl` on the old text, nats per token."""
        task, old = measure(self.base, model, self.task), measure(self.base, model, self.old)
        found = {"new_loss": _mean(task, "ce"), "old_loss": _mean(old, "ce"), "kl": _mean(old, "kl")}
        return {name: round(value, 5) for name, value in found.items()}


def _mean(drift: Drift, name: str) -> float:
    return float(drift.column(name).sum() / drift.tokens_D.sum())
