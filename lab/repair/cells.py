"""A small decoder that has forgotten, repaired by every method, beside replay from the start.

The cell's `tuned` is how it was tuned: a method of `common.small.finetuning` without replay. The budget is a share of
KL(base‖tuned) on the base's own text, so that every method undoes the same share of the drift. What a candidate kept
and lost is read on held-out text of both kinds, which no repair sees. Losses are in nats per token.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaForCausalLM

from common.grid import Cell, Row
from common.runner import once
from common.small.corpus import corpus, tokenizer_of
from common.small.finetuning import METHODS, prepare, train
from common.small.pretraining import pretrained
from common.small.readings import Reader as HeldOut
from keeptune.models.adapters import has_adapter
from keeptune.repair.frontier import Frontier
from keeptune.repair.outcome import Point, best_within
from keeptune.repair.pair import check_names, load_pair
from keeptune.repair.reading import Reader
from keeptune.repair.settings import RepairSettings
from keeptune.repair.texts import task_text, write_texts
from keeptune.storage import write_json
from keeptune.workspace import Steps

Read = Callable[[nn.Module], dict[str, float]]


def run_cell(cell: Cell, home: Path) -> dict[str, Any]:
    """Tune without replay, tune with it, and repair the first."""
    base = LlamaForCausalLM.from_pretrained(pretrained(cell), dtype=torch.float32)
    held_out, tokenizer = HeldOut(base, cell), tokenizer_of(cell)
    ends = home / "base", once(home / "tuned", lambda folder: tuned(cell, cell["tuned"], folder))
    base.save_pretrained(ends[0])
    for folder in ends:
        tokenizer.save_pretrained(folder)
    replayed = once(home / "replayed", lambda folder: tuned(cell, "kl_self", folder))
    settings = repair_settings(cell, *ends, home / "repair")
    if cell["data"] == "given":
        settings = replace(settings, task_text=task_rows(cell, home / "task.jsonl"))
    rows = [{"candidate": "replay", **held_out.read(LlamaForCausalLM.from_pretrained(replayed))}]
    return {"readings": rows + repaired(settings, 1 - cell["undone"], held_out.read)}


def tuned(cell: Cell, name: str, folder: Path) -> None:
    """Train by a method, and save all weights."""
    method = METHODS[name]
    base = LlamaForCausalLM.from_pretrained(pretrained(cell), dtype=torch.float32)
    reader = HeldOut(base, cell)
    model, pool, _ = prepare(base, method, cell, folder)
    train(model, pool, method, cell, reader, name)
    whole: Any = model.merge_and_unload() if has_adapter(model) else model  # type: ignore[operator]
    whole.save_pretrained(folder)


def task_rows(cell: Cell, file: Path) -> str:
    """Rows of the new text that training saw, as documents: the held-out ones are of other documents."""
    rows_RT1, tokenizer = corpus(cell, "new").train_RT1, tokenizer_of(cell)
    order = torch.randperm(len(rows_RT1), generator=torch.Generator().manual_seed(cell["seed"]))[: cell["task_rows"]]
    lines = [json.dumps({"text": tokenizer.decode(rows_RT1[row, 1:])}) for row in order.tolist()]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


def repair_settings(cell: Cell, base: Path | str, tuned: Path | str, out: Path) -> RepairSettings:
    """Settings of a repair, of the cell's fields that have their names."""
    names = ("rows", "length", "max_length", "tuning_steps", "tuning_rank", "learning_rate", "batch_size", "prompts")
    given = {name: cell[f"repair_{name}"] for name in names if f"repair_{name}" in cell}
    given["method"] = cell.get("repair_methods", "").split()
    return RepairSettings(base=str(base), tuned=str(tuned), out=str(out), seed=cell["seed"], most_lost=1.0, **given)


def repaired(settings: RepairSettings, left: float, read: Read) -> list[Row]:
    """Base, tuned model and the best candidate of every method within a budget of `left` of the tuned model's KL."""
    names = check_names(settings.base, settings.tuned)
    task = task_text(settings, names)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pair = load_pair(names, settings.folder / "cache", device)
    texts = write_texts(pair, settings)
    reader = Reader(model=pair.model, base_text=texts[0], tuned_text=texts[1], task=task)
    steps = Steps(settings.folder / "steps", settings=settings.identity(), left=left)
    cache = settings.folder / "cache"
    frontier = Frontier(pair=pair, settings=settings, reader=reader, steps=steps, cache=cache)
    ends = frontier.read_ends()
    frontier.settings = replace(settings, budget=left * ends.tuned.forgotten.value)
    rows = [of_model("tuned", Point.of("tuned", 1.0, ends.tuned, ends), read(pair.model), 0.0)]
    pair.change.place_base()
    rows.append(of_model("base", Point.of("base", 0.0, ends.base, ends), read(pair.model), 0.0))
    for name in settings.methods:
        start = time.process_time()
        frontier.settings = replace(frontier.settings, method=[name])
        frontier.explore()
        seconds = time.process_time() - start
        own = [point for point in frontier.points if point.method == name]
        best = best_within(own, frontier.limit(), most_lost=float("inf"))
        if best is not None:
            frontier.place(best)
            rows.append(of_model(name, best, read(pair.model), seconds))
    write_json(settings.folder / "frontier.json", [point.as_dict() for point in frontier.points])
    return rows


def of_model(name: str, point: Point, read: dict[str, float], seconds: float) -> Row:
    """A row: what the choosing rows said, and what the held-out text says."""
    return {
        "candidate": name,
        "strength": round(point.strength, 6),
        "own_kl": round(point.forgotten.value, 6),
        "own_undone": round(point.undone.value, 6),
        "choosing_lost": round(point.lost.value, 6),
        "seconds": round(seconds, 1),
        **read,
    }


def cell_rows(cell: Cell, kept: dict[str, Any], home: Path) -> Iterator[Row]:
    """A row for every model, all with the same columns."""
    columns = dict.fromkeys(column for row in kept["readings"] for column in row)
    for row in kept["readings"]:
        yield {column: row.get(column, "") for column in columns}
