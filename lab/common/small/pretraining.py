"""Small models pretrained on the old text. The first experiment that needs a model makes it for all of them.

The schedule is warm-up, a constant rate, and a linear fall over the last fifth. Models that differ only in the length
of pretraining share the part at the constant rate: twice the length continues from half of it, with its optimizer.

A cell with a `mixture` is pretrained on both texts: that share of the rows of every batch is of the new text.

A cell with `pretrain_until` is pretrained at a constant rate until its loss on held-out old text is that low, as in the
figures of Marek et al. that compare bases of equal loss.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaForCausalLM

from common.grid import Cell
from common.runner import once
from common.small.corpus import corpus, tokenizer_of
from common.small.decoders import make_decoder
from common.small.readings import mean_loss
from keeptune.errors import ConfigError
from keeptune.log import track
from keeptune.models.disk.wheels import cache_folder
from keeptune.storage import write_json
from keeptune.train.loop import task_sum

_FALL = 0.2
_WARMUP_STEPS = 50
_STEPS_BETWEEN_STOPS = 2
_LEAST_TOKENS_PER_PARAMETER = 5
_KEYS = ("old", "new", "vocabulary", "length", "width", "layers", "heads", "pretrain_rate", "pretrain_batch", "seed")


def pretrained(cell: Cell) -> Path:
    """Folder of the model that the cell starts from.

    It is pretrained until its old loss is `pretrain_until`, or on `tokens_per_parameter` tokens per parameter.
    """
    if "pretrain_until" in cell:
        return _stopped(cell)
    length = cell["tokens_per_parameter"]

    def make(folder: Path) -> None:
        trunk = _trunk(cell, length)
        model, optimizer = _load(trunk, cell)
        _train(model, optimizer, cell, steps_of(cell, (1 - _FALL) * length), steps_of(cell, length), falling=True)
        model.save_pretrained(folder)
        tokenizer_of(cell).save_pretrained(folder)

    return once(_home(cell) / f"{length:g}", make)


def _stopped(cell: Cell) -> Path:
    """The model that was stopped at the old loss `pretrain_until`.

    Raises:
        ConfigError: after `tokens_per_parameter` tokens per parameter its loss is still higher.
    """
    target, end = cell["pretrain_until"], steps_of(cell, cell["tokens_per_parameter"])

    def make(folder: Path) -> None:
        model = untrained(cell)
        rows_RT1 = corpus(cell, "old").held_out_RT1[: cell["eval_rows"]].to(model.device)

        def loss() -> float:
            with torch.no_grad():
                return mean_loss(model, rows_RT1)

        done = _train(model, _optimizer(model, cell), cell, 0, end, falling=False, stop=lambda: loss() <= target)
        if loss() > target:
            raise ConfigError(
                f"the old loss is {loss():.3f} after {done} steps of pretraining, above pretrain_until = {target}",
                "raise tokens_per_parameter or pretrain_until",
            )
        model.save_pretrained(folder)
        tokenizer_of(cell).save_pretrained(folder)
        write_json(folder / "pretraining.json", {"steps": done, "old_loss": loss()})

    return once(_home(cell) / f"until-{target:g}", make)


def _trunk(cell: Cell, length: float) -> Path:
    """Model and optimizer at the constant rate, after four fifths of `length` tokens per parameter."""

    def make(folder: Path) -> None:
        shorter = length / 2
        if shorter < _LEAST_TOKENS_PER_PARAMETER:
            model, done = untrained(cell), 0
            optimizer = _optimizer(model, cell)
        else:
            model, optimizer = _load(_trunk(cell, shorter), cell)
            done = steps_of(cell, (1 - _FALL) * shorter)
        _train(model, optimizer, cell, done, steps_of(cell, (1 - _FALL) * length), falling=False)
        model.save_pretrained(folder)
        _save(optimizer, folder / "optimizer.safetensors")

    return once(_home(cell) / f"trunk-{length:g}", make)


def _home(cell: Cell) -> Path:
    # Models without a mixture keep the names that they had before mixtures were added.
    mixture = {"mixture": cell["mixture"]} if cell.get("mixture") else {}
    settings = {key: cell[key] for key in _KEYS} | mixture
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    name = f"{cell['old']}-{cell['width']}x{cell['layers']}-seed{cell['seed']}-{digest}".replace("/", "_")
    return cache_folder() / "lab" / "pretrained" / name


def untrained(cell: Cell) -> LlamaForCausalLM:
    """The decoder before pretraining."""
    shape = {key: cell[key] for key in ("vocabulary", "width", "layers", "heads", "seed")}
    return make_decoder(**shape, length=cell["length"] + 1)


def parameters_of(cell: Cell) -> int:
    """Parameters of the cell's model, all of them."""
    width, layers, vocabulary = cell["width"], cell["layers"], cell["vocabulary"]
    return layers * (16 * width**2 + 2 * width) + width + 2 * vocabulary * width


def steps_of(cell: Cell, tokens_per_parameter: float) -> int:
    """Pretraining steps that read this many tokens per parameter."""
    return math.ceil(tokens_per_parameter * parameters_of(cell) / (cell["pretrain_batch"] * cell["length"]))


def _optimizer(model: LlamaForCausalLM, cell: Cell) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=cell["pretrain_rate"], betas=(0.9, 0.999), weight_decay=0.02)


def _train(
    model: LlamaForCausalLM,
    optimizer: torch.optim.AdamW,
    cell: Cell,
    done: int,
    end: int,
    *,
    falling: bool,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Train from step `done` to `end`, or until `stop`, which is asked every other step; returns the last step."""
    batches = pretraining_batches(cell, done)
    model.train()
    label = f"Pretraining {cell['width']} wide, seed {cell['seed']}"
    with track(label, end, "steps") as progress:
        progress.skip(done)
        for step in range(done, end):
            if step % _STEPS_BETWEEN_STOPS == 0 and stop():
                return step
            share = (end - step) / (end - done) if falling else min((step + 1) / _WARMUP_STEPS, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = cell["pretrain_rate"] * share
            batch_BT1 = next(batches).to(model.device)
            loss = task_sum(model, {"input_ids": batch_BT1, "labels": batch_BT1}) / batch_BT1[:, 1:].numel()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            progress.advance(note=f"loss {loss.item():.3f}")
    return end


def pretraining_batches(cell: Cell, done: int) -> Iterator[Tensor]:
    """Batches of old rows and, by the cell's `mixture`, new rows, from step `done` on."""
    size = cell["pretrain_batch"]
    new = round(cell.get("mixture", 0.0) * size)
    texts = [_batches(cell, text, rows, done) for text, rows in (("old", size - new), ("new", new)) if rows]
    while True:
        yield torch.cat([next(rows) for rows in texts])


def old_batches(cell: Cell, done: int = 0) -> Iterator[Tensor]:
    """Batches of old rows, in a new order every epoch, from step `done` on."""
    return _batches(cell, "old", cell["pretrain_batch"], done)


def _batches(cell: Cell, text: str, size: int, done: int) -> Iterator[Tensor]:
    rows_RT1 = corpus(cell, text).train_RT1
    rounds, skipped = divmod(done, len(rows_RT1) // size)
    while True:
        generator = torch.Generator().manual_seed(1_000_003 * rounds + cell["seed"])
        order = torch.randperm(len(rows_RT1), generator=generator)
        for chosen in order.split(size)[skipped : len(rows_RT1) // size]:
            yield rows_RT1[chosen]
        rounds, skipped = rounds + 1, 0


def _save(optimizer: torch.optim.AdamW, file: Path) -> None:
    state = optimizer.state_dict()["state"]
    save_file({f"{index} {name}": tensor for index, own in state.items() for name, tensor in own.items()}, file)


def _load(folder: Path, cell: Cell) -> tuple[LlamaForCausalLM, torch.optim.AdamW]:
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    optimizer = _optimizer(model, cell)
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_file(folder / "optimizer.safetensors").items():
        index, _, name = key.partition(" ")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return model, optimizer
