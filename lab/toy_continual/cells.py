"""Four tasks in sequence, with and without self-replay: does the model keep the earlier ones? (Marek et al. 2026)

Training is `keeptune.keep_tuning`, with λ = 0 for no replay; the pools are made by `keeptune.sample_pool`. A killed run
resumes from its last finished task. The csv has the accuracy on each task along the training.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from common.grid import Cell, Row
from common.runner import once
from common.small.decoders import make_decoder
from keeptune import KeepConfig, ReplayPool, keep_tuning, sample_pool
from keeptune.log import track
from keeptune.storage import write_json
from toy_continual.tasks import ABOVE_999, ANSWER, LENGTH, TASKS, WORDS, held_out_rows, make_rows, make_tokenizer

_FINAL_RATE = 0.02
_EVAL_SEED = 1_000


def run_cell(cell: Cell, home: Path) -> dict[str, Any]:
    """Train one model on all four tasks. Each finished task leaves the model and its readings in its own folder."""
    model = untrained(cell)
    folders = [home / f"{stage}-{task}" for stage, task in enumerate(TASKS)]
    # The first task has nothing to keep, so that all methods share its model.
    folders[0] = home.parent / "shared" / f"{TASKS[0]}-seed{cell['seed']}"
    for stage, folder in enumerate(folders):

        def train(made: Path, stage: int = stage, model: LlamaForCausalLM = model) -> None:
            readings = learn(model, stage, cell, write_pool(model, stage, cell, home / "pool"))
            model.save_pretrained(made)
            write_json(made / "readings.json", readings)

        once(folder, train)
        model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).to(model.device)
    shutil.rmtree(home / "pool", ignore_errors=True)
    stages = [json.loads((folder / "readings.json").read_text(encoding="utf-8")) for folder in folders]
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": sum(readings["seconds"] for readings in stages),
        "readings": [reading for readings in stages for reading in readings["readings"]],
    }


def untrained(cell: Cell) -> LlamaForCausalLM:
    """The decoder of two layers before any task."""
    return make_decoder(
        vocabulary=len(WORDS), width=cell["width"], layers=2, heads=cell["heads"], length=LENGTH, seed=cell["seed"]
    )


def write_pool(model: LlamaForCausalLM, stage: int, cell: Cell, folder: Path) -> ReplayPool:
    """A pool that the model before the task writes from the earlier tasks' tokens; two rows if none is replayed."""
    shutil.rmtree(folder, ignore_errors=True)
    rows = cell["pool_rows"] if replays(stage, cell) else 2
    return sample_pool(
        model,
        make_tokenizer(),
        folder,
        tokens=rows * (LENGTH - 1),
        length=LENGTH - 1,
        seed=10 * cell["seed"] + stage,
        start=list(TASKS[: max(stage, 1)]),
        dtype=torch.float32,
        predictions="none" if cell["method"] == "ntp" else "hidden",
    )


def replays(stage: int, cell: Cell) -> bool:
    """Whether a task is learned with replay. The first has nothing to keep."""
    return stage > 0 and cell["method"] != "none"


def learn(model: LlamaForCausalLM, stage: int, cell: Cell, pool: ReplayPool) -> dict[str, Any]:
    """Train on one task, in place. Returns the readings on all four, and processor seconds including the readings."""
    held_out = held_out_rows(cell["eval_rows"], _EVAL_SEED + cell["seed"])
    steps, before = cell["steps"][TASKS[stage]], sum(cell["steps"][task] for task in TASKS[:stage])
    optimizer = torch.optim.AdamW(model.parameters(), lr=cell["learning_rate"], betas=(0.9, 0.99), weight_decay=0.02)

    def rate(step: int) -> float:
        return min((step + 1) / cell["warmup"], 1.0) * max(1 - step / steps, _FINAL_RATE)

    keep = KeepConfig(
        lambda_=cell["lambda_"] if replays(stage, cell) else 0.0,
        objective="ntp" if cell["method"] == "ntp" else "kl",
        replay_rows=cell["replay_rows"],
        drift_rows=1,
    )
    start, readings = time.process_time(), []
    if stage == 0:
        readings.append({"task": TASKS[0], "step": 0, **accuracies(model, held_out)})
    training = keep_tuning(
        model,
        batches(TASKS[stage], cell, stage),
        pool,
        optimizer=optimizer,
        steps=steps,
        keep=keep,
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, rate),
        seed=cell["seed"],
    )
    with track(f"{cell['method']}, seed {cell['seed']}, task {stage + 1} of 4", steps, "steps") as progress:
        for reading in training:
            if reading.step % cell["eval_every"] == 0 or reading.step == steps:
                found = accuracies(model, held_out)
                readings.append({"task": TASKS[stage], "step": before + reading.step, **found})
            progress.advance(note=f"task loss {reading.task_loss:.3f}")
    return {"readings": readings, "seconds": time.process_time() - start}


def batches(task: str, cell: Cell, stage: int) -> Iterator[dict[str, Tensor]]:
    """Endless batches of the task's rows in random order. Every token is learned, since the model has to write whole
    rows itself."""
    rows = make_rows(task, cell["train_rows"], 10 * cell["seed"] + stage)
    generator = torch.Generator().manual_seed(cell["seed"])
    while True:
        for chosen in torch.randperm(len(rows), generator=generator).split(cell["batch"]):
            yield {"input_ids": rows[chosen], "labels": rows[chosen]}


@torch.no_grad()
def accuracies(model: LlamaForCausalLM, held_out: dict[str, Tensor]) -> dict[str, float]:
    """The share of each set of rows whose answer and end are right under greedy decoding.

    One forward pass gives the result of greedy decoding: an answer is right if and only if each of its tokens is the
    likeliest after the right tokens before it.
    """
    model.eval()
    found = {}
    for task, rows_RT in held_out.items():
        rows_RT = rows_RT.to(model.device)
        likeliest_RT = model(input_ids=rows_RT, use_cache=False).logits.argmax(dim=-1)
        right_RT = likeliest_RT[:, ANSWER.start - 1 : -1] == rows_RT[:, ANSWER]
        found[task] = float(right_RT.all(dim=1).float().mean())
    model.train()
    return found


def cell_rows(cell: Cell, kept: dict[str, Any], home: Path) -> Iterator[Row]:
    """A row for every reading of every task."""
    for reading in kept["readings"]:
        for task in (*TASKS, ABOVE_999):
            yield {
                "step": reading["step"],
                "learning": reading["task"],
                "task": task,
                "accuracy": reading[task],
                "rows_read": cell["eval_rows"],
                "parameters": kept["parameters"],
                "cell_seconds": round(kept["seconds"], 1),
            }
