"""Fine-tunes a small pretrained model by one of the methods in METHODS, which the cell's `method` names.

Training is `keeptune.keep_tuning`, the pools are keeptune's, and readings use the library's own loss. Losses are in
nats per token.

Shapes: B rows, T targets a row.
"""

from __future__ import annotations

import hashlib
import json
import runpy
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import IA3Config, LoraConfig, OSFConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from common.grid import LAB, Cell, Row
from common.runner import once
from common.small.corpus import corpus, tokenizer_of
from common.small.pretraining import old_batches, pretrained
from common.small.readings import Reader
from common.small.schedules import rate_at
from keeptune import KeepConfig, ReplayPool, keep_tuning, sample_pool, text_pool
from keeptune.log import track
from keeptune.models.disk.wheels import cache_folder
from keeptune.storage import write_json

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
LINEAR = [*ATTENTION, *MLP]


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a model is fine-tuned."""

    replay: Literal["none", "self", "real", "task"] = "none"
    """Text of the replay term: none, written by the base, old text, or text of the new task."""
    objective: Literal["kl", "reverse_kl", "jensen_shannon", "ntp"] = "kl"
    tuning: Literal["full", "lora", "attention", "ia3", "osft", "top"] = "full"
    """All weights; LoRA on all linear layers or on attention alone; IA³; OSFT; or the top layers alone."""
    replaces: bool = False
    """Old rows replace a share of each task batch."""
    finch: bool = False
    """The learning rate follows FINCH."""
    interpolates: bool = False
    """The final model is read mixed with the base, at several shares."""


METHODS = {
    "standard": Method(),
    "lora": Method(tuning="lora"),
    "attention": Method(tuning="attention"),
    "ia3": Method(tuning="ia3"),
    "top": Method(tuning="top"),
    "osft": Method(tuning="osft"),
    "finch": Method(finch=True),
    "interpolation": Method(interpolates=True),
    "replace": Method(replaces=True),
    "kl_task": Method(replay="task"),
    "kl_real": Method(replay="real"),
    "kl_self": Method(replay="self"),
    "ntp_real": Method(replay="real", objective="ntp"),
    "ntp_self": Method(replay="self", objective="ntp"),
    "reverse_kl_self": Method(replay="self", objective="reverse_kl"),
    "jensen_shannon_self": Method(replay="self", objective="jensen_shannon"),
}
_SHARES = [share / 20 for share in range(1, 20)]


def run_cell(cell: Cell, home: Path) -> dict[str, Any]:
    """Fine-tune the cell's model until its new loss is below `stop_below`, or for `steps` steps."""
    method = METHODS[cell["method"]]
    base = LlamaForCausalLM.from_pretrained(pretrained(cell), dtype=torch.float32)
    base.to("cuda" if torch.cuda.is_available() else "cpu")
    reader = Reader(base, cell)
    model, pool, pool_seconds = prepare(base, method, cell, home)
    found = train(model, pool, method, cell, reader, home.name)
    if method.interpolates:
        found["readings"] += mixtures(model, pretrained(cell), reader, found["readings"][-1])
    return {
        "parameters": sum(parameter.numel() for parameter in base.parameters()),
        "tuned_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "pool_seconds_a_row": pool_seconds / pool.rows,
        "pool_rows": pool.rows,
        **found,
    }


def run_shared(cell: Cell, home: Path) -> dict[str, Any]:
    """As `run_cell`, but experiments share the run if all settings of their cells are equal: the first makes it."""
    digest = hashlib.sha256(json.dumps(cell, sort_keys=True).encode()).hexdigest()[:12]

    def make(folder: Path) -> None:
        write_json(folder / "found.json", run_cell(cell, home))

    folder = once(cache_folder() / "lab" / "tuned" / f"{pretrained(cell).parent.name}-{digest}", make)
    found: dict[str, Any] = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    return found


def prepare(base: LlamaForCausalLM, method: Method, cell: Cell, home: Path) -> tuple[nn.Module, ReplayPool, float]:
    """The model to train, the pool that it replays, and the seconds that the base took to write it."""
    if method.replay == "none":
        model = adapted(base, method, cell)
        return model, two_rows(model, cell, home), 0.0
    pool, seconds = replay_pool(base, method, cell, home)
    return adapted(base, method, cell), pool, seconds


def adapted(base: LlamaForCausalLM, method: Method, cell: Cell) -> nn.Module:
    """The model to train. The cell's `embeddings` may say whether embeddings and head are `trained` or `frozen`.

    By default the methods that tune all weights train them, and no other method does.
    """
    model = tuned_part(base, method, cell)
    if "embeddings" in cell:
        for layer in (base.get_input_embeddings(), base.get_output_embeddings()):
            layer.requires_grad_(cell["embeddings"] == "trained")
    return model


def tuned_part(base: LlamaForCausalLM, method: Method, cell: Cell) -> nn.Module:
    """The base itself, the base with a fresh adapter, or the base with its lower layers frozen."""
    torch.manual_seed(cell["seed"])
    if method.tuning in ("lora", "attention"):
        rank, modules = cell["rank"], LINEAR if method.tuning == "lora" else ATTENTION
        return get_peft_model(base, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=modules, lora_dropout=0.0))
    if method.tuning == "ia3":
        modules = cell["scaled"]
        scaled = IA3Config(target_modules=modules, feedforward_modules=[name for name in modules if name in MLP])
        return get_peft_model(base, scaled)
    if method.tuning == "top":
        base.requires_grad_(False)
        base.model.layers[-cell["top_layers"] :].requires_grad_(True)
        return base
    if method.tuning == "osft":
        half = dict.fromkeys(LINEAR, cell["width"] // 2)
        return get_peft_model(base, OSFConfig(target_modules=LINEAR, rank_pattern=half))
    return base


def two_rows(model: nn.Module, cell: Cell, home: Path) -> ReplayPool:
    """The pool of a run without replay. The training loop needs one, but does not read it."""
    tokens_RT1 = corpus(cell, "old").train_RT1[:2]
    return text_pool(model, tokenizer_of(cell), home / "unread", tokens_RT1, source=cell["old"], dtype=torch.float32)


def replay_pool(base: LlamaForCausalLM, method: Method, cell: Cell, home: Path) -> tuple[ReplayPool, float]:
    """A pool that the cells of one base share, and the processor seconds that it took to write."""
    rows, temperature, tokenizer = cell["pool_rows"], cell.get("temperature", 1.0), tokenizer_of(cell)
    which = {"real": "old", "task": "new"}.get(method.replay)

    def make(folder: Path) -> None:
        start = time.process_time()
        if which is None:
            sample_pool(
                base,
                tokenizer,
                folder / "pool",
                tokens=rows * cell["length"],
                length=cell["length"],
                seed=cell["seed"],
                dtype=torch.float32,
                temperature=temperature,
            )
        else:
            tokens_RT1 = corpus(cell, which).train_RT1
            order = torch.randperm(len(tokens_RT1), generator=torch.Generator().manual_seed(cell["seed"]))
            given = tokens_RT1[order[:rows]]
            text_pool(base, tokenizer, folder / "pool", given, source=cell[which], dtype=torch.float32)
        write_json(folder / "seconds.json", time.process_time() - start)

    whose = pretrained(cell)
    name = f"pool-{method.replay}-{whose.parent.name}-{whose.name}-{rows}-{temperature:g}"
    folder = once(home.parent / "shared" / name, make)
    return ReplayPool.open(folder / "pool"), json.loads((folder / "seconds.json").read_text(encoding="utf-8"))


def train(model: nn.Module, pool: ReplayPool, method: Method, cell: Cell, reader: Reader, label: str) -> dict[str, Any]:
    """Readings along the training, each with the processor seconds of the training so far."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decay = cell.get("weight_decay", 0.0)
    optimizer = torch.optim.AdamW(weights, lr=cell["learning_rate"], betas=(0.9, 0.999), weight_decay=decay)
    keep = KeepConfig(
        lambda_=0.0 if method.replay == "none" else cell["lambda_"],
        objective=method.objective,
        replay_rows=cell["replay_rows"],
        drift_rows=1,
    )
    steps, rates = cell["steps"], schedule(optimizer, method, cell)
    training = keep_tuning(
        model,
        batches(cell, method),
        pool,
        optimizer=optimizer,
        steps=steps,
        keep=keep,
        scheduler=rates,
        seed=cell["seed"],
        before_step=(lambda reading: rates.see(reading.task_loss)) if method.finch else None,
    )
    found, seconds = [{"step": 0, "seconds": 0.0, "share": 1.0, **reader.read(model)}], 0.0
    with track(label, steps, "steps") as progress:
        start = time.process_time()
        for reading in training:
            if reading.step % cell["eval_every"] == 0 or reading.step.bit_count() == 1 or reading.step == steps:
                seconds += time.process_time() - start
                found.append({"step": reading.step, "seconds": round(seconds, 2), "share": 1.0, **reader.read(model)})
                if found[-1]["new_loss"] < cell["stop_below"]:
                    break
                start = time.process_time()
            progress.advance(note=f"task loss {reading.task_loss:.3f}, old {found[-1]['old_loss']:.3f}")
    return {"readings": found}


def schedule(optimizer: torch.optim.Optimizer, method: Method, cell: Cell) -> Any:
    """FINCH, or warm-up and then the cell's `schedule`, `linear` or `cosine`, which falls to 0.

    By default the rate is constant, so that a reading at step N is the end of a run of N steps.
    """
    if method.finch:
        recipe = runpy.run_path(str(LAB.parent / "recipes" / "finch.py"))
        return recipe["FinchSchedule"](optimizer, start=cell["finch"], warmup_steps=cell["warmup"])
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, cell))


def batches(cell: Cell, method: Method) -> Iterator[dict[str, Tensor]]:
    """Endless batches of rows of the new text in random order; if the method replaces, a share of them is old."""
    new_RT1, size = corpus(cell, "new").train_RT1, cell["batch"]
    replaced = max(1, round(cell["replaced"] * size)) if method.replaces else 0
    old = old_batches({**cell, "pretrain_batch": replaced}) if replaced else None
    generator = torch.Generator().manual_seed(cell["seed"])
    while True:
        order = torch.randperm(len(new_RT1), generator=generator)
        for chosen in order.split(size)[: len(order) // size]:
            rows_BT1 = new_RT1[chosen]
            if old is not None:
                rows_BT1 = torch.cat([rows_BT1[replaced:], next(old)])
            yield {"input_ids": rows_BT1, "labels": rows_BT1}


@torch.no_grad()
def mixtures(model: nn.Module, base: Path, reader: Reader, end: dict[str, Any]) -> list[dict[str, Any]]:
    """Readings of the weights between the base and the tuned model, at several shares of the way."""
    start = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32).to(reader.device).state_dict()
    tuned = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = []
    for share in _SHARES:
        model.load_state_dict({name: torch.lerp(start[name], tensor, share) for name, tensor in tuned.items()})
        found.append({"step": end["step"], "seconds": end["seconds"], "share": share, **reader.read(model)})
    return found


def cell_rows(cell: Cell, kept: dict[str, Any], home: Path) -> Iterator[Row]:
    """A row of the csv for every reading."""
    first = kept["readings"][0]
    for reading in kept["readings"]:
        yield {
            **reading,
            "base_new_loss": first["new_loss"],
            "base_old_loss": first["old_loss"],
            "task_tokens": reading["step"] * cell["batch"] * cell["length"],
            "parameters": kept["parameters"],
            "tuned_parameters": kept["tuned_parameters"],
            "pool_seconds_a_row": round(kept["pool_seconds_a_row"], 6),
        }
