"""The base that a saved adapter names: whether it is the model that was trained on, and saving that model beside."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers.utils import cached_file, has_file

from keeptune.log import logger
from keeptune.models.adapters.inside import base_state, causal_model, unrepeatable
from keeptune.storage import damaged_json, write_json

_CONFIG = "adapter_config.json"
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
RECORD = "base.json"
"""Beside a saved adapter: where its base is from there."""


@dataclass(frozen=True, kw_only=True)
class _Record:
    base: str | None
    relative: str | None = None
    """The path from the adapter's folder, where the base is a folder."""
    fingerprint: str | None = None


def name_base(model: nn.Module, name: str, *, moved: bool = False) -> None:
    """Let the model's adapters name their base `name` when they are saved.

    `moved`: weights that an initialization took out of the base are missing in `name` too, so that loading must not
    take them out again.
    """
    for config in model.peft_config.values():  # type: ignore[union-attr, operator]
        config.base_model_name_or_path = name
        if moved and unrepeatable(config):
            config.init_lora_weights = True


def record_base(folder: Path, home: Path, fingerprint: str) -> None:
    """Write into an adapter's `folder`, which will be `home`, where its base is from there and what weights it has."""
    name = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    relative = os.path.relpath(name, home.resolve()) if name and Path(name).is_dir() else None
    write_json(folder / RECORD, asdict(_Record(base=name, relative=relative, fingerprint=fingerprint)))


def named_base(folder: str, base: str) -> tuple[str, str | None]:
    """The base of the adapter in `folder`, which names it `base`, and the fingerprint recorded for it, if one is.

    Where the path is gone, adapter and base may have been moved together: then it is the path from one to the other.
    """
    from keeptune.codec import from_json  # noqa: PLC0415 - pydantic is slow to load

    file = Path(folder) / RECORD
    if not file.is_file():
        return base, None
    with damaged_json(file, f"delete {file}"):
        record = from_json(_Record, file.read_bytes())
    if record.relative and not Path(base).exists():
        moved = Path(folder, record.relative).resolve()
        if moved.is_dir():
            logger.info(f"the base {base} of {folder} is gone: using {moved}")
            base = str(moved)
    return base, record.fingerprint


def differs_from_disk(model: nn.Module, name: str) -> str | None:
    """Why the base inside `model` is not the model saved under `name`; None if it is, or if that cannot be read.

    The weights are compared in the narrower of the two dtypes, so that loading in another dtype makes no difference.
    """
    if getattr(causal_model(model), "is_quantized", False):
        return None
    try:
        if has_file(name, _CONFIG, local_files_only=True):
            return "it is an adapter"
        own = dict(base_state(model))
        for key, saved in _saved_tensors(name):
            if key in own and not _same(own[key], saved):
                return f"{key} has other values there"
    except OSError:
        return None  # not on this disk
    return None


def _same(own: Tensor, saved: Tensor) -> bool:
    if own.shape != saved.shape:
        return False
    # One byte a value is a storage format of quantized weights, which transformers has unpacked.
    if not (own.is_floating_point() and saved.is_floating_point()) or saved.dtype.itemsize == 1:
        return True
    narrow = min(own.dtype, saved.dtype, key=lambda dtype: dtype.itemsize)
    return torch.equal(own.detach().cpu().to(narrow), saved.to(narrow))


def _saved_tensors(name: str) -> Iterator[tuple[str, Tensor]]:
    if has_file(name, _INDEX, local_files_only=True):
        index = Path(str(cached_file(name, _INDEX, local_files_only=True)))
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        files = [_WEIGHTS]
    for file in files:
        with safe_open(str(cached_file(name, file, local_files_only=True)), framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118 — a safetensors file is no dict
                yield key, opened.get_tensor(key)


def save_base(model: nn.Module, tokenizer: Any, folder: Path) -> None:
    """Save the base inside `model`, without its adapter, as a model of its own."""
    causal = causal_model(model)
    causal.save_pretrained(folder, state_dict={name: tensor.detach() for name, tensor in base_state(model)})
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
