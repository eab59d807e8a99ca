"""A run of `keeptune tune` that is read along the way, so that methods can be compared after equal processor time.

The rate is constant after its warm-up: a run up to any reading is a run of so many steps. Readings cost no time here:
what is counted is the optimizer steps, and the writing of the replay rows that they used. Losses are in nats per token.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from common.chat.instructed import base_of
from common.chat.tuned import settings_of
from common.grid import Cell, Row
from common.runner import once
from keeptune import sample_pool
from keeptune.audit.answers import answer, rendered, tokenised
from keeptune.audit.meter import measure
from keeptune.audit.safety import load_prompts
from keeptune.audit.safety.detectors import repeats
from keeptune.audit.texts import self_rows, text_rows
from keeptune.models.loading import load_model, load_tokenizer
from keeptune.models.modeling import select_attention
from keeptune.runs.run import tune
from keeptune.runs.task_rows import task_rows
from keeptune.storage import write_json

_FRESH_SEED = 1_000
_NEW_TOKENS = 48
OLD = "pydoc"


def run_cell(cell: Cell, home: Path) -> dict[str, Any]:
    """Tune by the cell's settings from the start, with a reading every `read_every` steps and one of the base."""
    shutil.rmtree(home / "run", ignore_errors=True)
    model = base_of(cell)
    base, tokenizer = load_model(model), load_tokenizer(model)
    select_attention(base, cell["replay_length"])
    shared = home.parent / "shared"
    pool = once(shared / f"pool-{cell['seed']}-{cell['pool_rows']}", lambda made: _write(cell, base, tokenizer, made))
    fresh = once(shared / f"fresh-{cell['seed']}", partial(_own_text, cell, base, tokenizer))
    reader = Reader(cell, base, tokenizer, _texts(cell, base, tokenizer, fresh))
    reader.read(0, base)
    settings = settings_of(cell, model=model, out=str(home / "run"), replay=str(pool / "pool"))
    tune(settings, label=home.name, extra_callbacks=[reader])
    shutil.rmtree(home / "run" / "model")
    written = json.loads((pool / "cost.json").read_text())
    return {"readings": reader.readings, "seconds_to_write_a_row": written["seconds"] / written["rows"]}


def cell_rows(cell: Cell, kept: dict[str, Any], home: Path) -> Iterator[Row]:
    """A row of the csv for every reading."""
    replayed = cell["replay_rows"] if cell["lambda_"] else 0
    distinct = cell["pool_rows"] - cell["drift_rows"]
    for row in kept["readings"]:
        # A row that is used again is written once.
        writing = kept["seconds_to_write_a_row"] * min(replayed * row["step"], distinct)
        values = {**row, "write_seconds": writing}
        yield {name: round(value, 5) if isinstance(value, float) else value for name, value in values.items()}


class Reader(TrainerCallback):
    """Reads the model in training, and interpolations of its last weights to the base's; counts processor seconds."""

    def __init__(
        self, cell: Cell, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: dict[str, list[Row]]
    ) -> None:
        self.cell, self.base, self.tokenizer, self.texts = cell, base, tokenizer, texts
        (asked,) = load_prompts([], ["prompts=harmless"], cell["prompts"]).values()
        self.prompts = tokenised(tokenizer, [rendered(tokenizer, prompt) for prompt in asked.prompts])
        self.readings: list[Row] = []
        self._seconds = self._since = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._since = time.process_time()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop the clock, before anything is read."""
        self._seconds += time.process_time() - self._since

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Read the model, at the end also between it and the base."""
        step = state.global_step
        if step % self.cell["read_every"] == 0 or step == state.max_steps:
            self.read(step, model)
        if step == state.max_steps:
            for share in self.cell.get("interpolations", []):
                with interpolated(model, self.base, share):
                    self.read(step, model, share)

    def read(self, step: int, model: Any, share: float = 1.0) -> None:
        """Append a reading of a model, which is `share` of the way from the base to the tuned weights."""
        row: Row = {"step": step, "share": share, "train_seconds": self._seconds}
        for name, of_text in self.texts.items():
            drift = measure(self.base, model, of_text, label=f"{name}, step {step}")
            tokens = drift.tokens_D.sum()
            for short, column in (("loss", "ce"), ("kl", "kl"), ("change", "ce_change")):
                row[f"{name}_{short}"] = float(drift.column(column).sum() / tokens)
        said = answer(model, self.prompts, _NEW_TOKENS, f"answers, step {step}")
        texts = [str(self.tokenizer.decode(new, skip_special_tokens=True)) for new in said]
        row["repeating"] = sum(map(repeats, texts)) / len(texts)
        row["empty"] = sum(not text.strip() for text in texts) / len(texts)
        self.readings.append(row)


class interpolated:  # noqa: N801 (used as a function)
    """The model's weights on the way from the base to its own while the block runs (WiSE-FT, arXiv 2109.01903)."""

    def __init__(self, model: PreTrainedModel, base: PreTrainedModel, share: float) -> None:
        self.pairs = list(zip(model.parameters(), base.parameters(), strict=True))
        self.share = share

    @torch.no_grad()
    def __enter__(self) -> None:
        self.own = [tuned.clone() for tuned, _ in self.pairs]
        for tuned, base in self.pairs:
            tuned.lerp_(base.to(tuned.dtype), 1.0 - self.share)

    @torch.no_grad()
    def __exit__(self, *raised: object) -> None:
        for (tuned, _), own in zip(self.pairs, self.own, strict=True):
            tuned.copy_(own)


def _write(cell: Cell, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """A pool with a replay row for every use, and what it cost to write in processor seconds."""
    rows = cell["pool_rows"]
    since = time.process_time()
    how = {"tokens": rows * cell["replay_length"], "length": cell["replay_length"], "seed": cell["seed"]}
    sample_pool(base, tokenizer, folder / "pool", **how)
    write_json(folder / "cost.json", {"rows": rows, "seconds": time.process_time() - since})


def _own_text(cell: Cell, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> list[Row]:
    """Fresh samples of the base, which are written into the folder at the first call."""
    how: dict[str, Any] = {"docs": cell["documents"], "length": cell["replay_length"] + 1}
    return self_rows(base, tokenizer, folder / "pool", seed=cell["seed"] + _FRESH_SEED, **how)


def _texts(cell: Cell, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, fresh: Path) -> dict[str, list[Row]]:
    """Rows of the held-out task, of fresh samples of the base, and of old text that no run replays."""
    settings = dataclasses.replace(settings_of(cell, model=base_of(cell), out=""), held_out_rows=cell["task_windows"])
    how: dict[str, Any] = {"docs": cell["documents"], "length": cell["replay_length"] + 1, "seed": cell["seed"]}
    return {
        "task": list(task_rows(settings, tokenizer)[1]),
        "own": _own_text(cell, base, tokenizer, fresh),
        "old": text_rows(OLD, base, tokenizer, fresh, windows=1, **how),
    }
