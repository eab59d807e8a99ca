"""The dtype of a saved model: which one a checkpoint has, and how to save a model in another."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file, has_file

from keeptune.log import logger

# Names in safetensors. Other types, such as float8, are storage formats of quantized models.
DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def checkpoint_dtype(name: str) -> torch.dtype:
    """The dtype of most weights in a model's first safetensors file, by a name as for `from_pretrained`.

    It is read from the weights, because config.json may say another. If none has a plain dtype, config.json decides.
    """
    file = SAFE_WEIGHTS_NAME
    if has_file(name, SAFE_WEIGHTS_INDEX_NAME):
        index = json.loads(Path(str(cached_file(name, SAFE_WEIGHTS_INDEX_NAME))).read_text(encoding="utf-8"))
        file = sorted(index["weight_map"].values())[0]
    dtype = _dtype_of(Path(str(cached_file(name, file))))
    if dtype != torch.uint8:
        return dtype
    config = AutoConfig.from_pretrained(name, trust_remote_code=False).get_text_config()
    return config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32


def _dtype_of(file: Path) -> torch.dtype:
    """The dtype of most weights of a safetensors file; uint8 stands for all that is no plain dtype."""
    sizes: Counter[torch.dtype] = Counter()
    with safe_open(file, framework="pt") as tensors:
        for key in tuple(tensors.keys()):
            part = tensors.get_slice(key)
            sizes[DTYPES.get(part.get_dtype(), torch.uint8)] += torch.Size(part.get_shape()).numel()
    return sizes.most_common(1)[0][0]


def recast(folder: Path, dtype: torch.dtype | None) -> torch.dtype:
    """Cast the floating-point tensors of a saved model or adapter in place; returns the dtype that it then has.

    It stays as it is if `dtype` is None, or if a finite value would become infinite in `dtype`.
    """
    files = sorted(folder.glob("*.safetensors"))
    own = _dtype_of(files[0])
    if dtype is None or dtype == own:
        return own
    if any(_overflows(tensor, dtype) for file in files for tensor in load_file(file).values()):
        logger.warning(f"some weights are too large for {dtype}: the model is saved in {own}")
        return own
    for file in files:
        cast = {key: t.to(dtype) if t.is_floating_point() else t for key, t in load_file(file).items()}
        save_file(cast, file, metadata={"format": "pt"})
    for path in folder.glob("config.json"):
        config = _renamed(json.loads(path.read_text(encoding="utf-8")), str(dtype).removeprefix("torch."))
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for path in folder.glob("*.safetensors.index.json"):
        index = json.loads(path.read_text(encoding="utf-8"))
        index["metadata"]["total_size"] = sum(t.nbytes for file in files for t in load_file(file).values())
        path.write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return dtype


def _overflows(tensor: torch.Tensor, dtype: torch.dtype) -> bool:
    # Finite in float32 and not in float16, whose largest value is 65504.
    narrow = tensor.is_floating_point() and torch.finfo(dtype).max < torch.finfo(tensor.dtype).max
    return narrow and not bool((tensor.isfinite() == tensor.to(dtype).isfinite()).all())


def _renamed(config: Any, dtype: str) -> Any:
    """The configuration with `dtype` as its dtype, also within the configurations of a composite model."""
    if not isinstance(config, dict):
        return config
    return {key: dtype if key in ("dtype", "torch_dtype") else _renamed(value, dtype) for key, value in config.items()}
