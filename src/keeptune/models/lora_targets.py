"""Which linear layers a LoRA on all of them is put on: those that text runs through and that PEFT wraps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from keeptune.log import logger
from keeptune.models.adapters import evaluating
from keeptune.models.anatomy import anatomy_of
from keeptune.models.quantized import quantized_layers

_SHOWN = 5  # names of a message


def all_linear(model: PreTrainedModel, **settings: Any) -> LoraConfig:
    """`LoraConfig(target_modules="all-linear")` without the layers on which it fails, does nothing or cannot be merged.

    What is left out is logged. `model` is the base, before any adapter.
    """
    if packed := quantized_layers(model):
        return LoraConfig(**settings, target_modules=packed)
    config = LoraConfig(**settings, target_modules="all-linear")
    head = model.get_output_embeddings()
    layers = {name: m for name, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not head}
    left_out: set[str] = set()
    for reason, names in _reasons(model, config, layers):
        if fresh := [name for name in names if name not in left_out]:
            shown = sorted({re.sub(r"\d+", "*", name) for name in fresh})
            more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
            logger.info(
                f"LoRA leaves out {len(fresh)} of the {len(layers)} linear layers of {type(model).__name__}, because"
                f" {reason}: {', '.join(shown[:_SHOWN])}{more}"
            )
        left_out.update(names)
    if left_out:
        patterns = {re.sub(r"\d+", r"\\d+", re.escape(name)) for name in left_out}
        config.exclude_modules = "|".join(sorted(patterns))
    return config


def _reasons(
    model: PreTrainedModel, config: LoraConfig, layers: dict[str, nn.Module]
) -> Iterator[tuple[str, list[str]]]:
    """Why layers are left out, and which."""
    idle = anatomy_of(model).idle
    unused = [name for name in layers if any(name == part or name.startswith(f"{part}.") for part in idle)]
    yield "text does not run through them", unused
    more = _return_more(model, layers)
    yield "PEFT cannot wrap them in this architecture", [n for n in layers if n in more or _refused(config, model, n)]
    uses = Counter(layer.weight for layer in layers.values())
    yield (
        "their weights are tied to each other, and merging would change all of them",
        [name for name, layer in layers.items() if uses[layer.weight] > 1],
    )


def _refused(config: LoraConfig, model: PreTrainedModel, name: str) -> bool:
    """Whether PEFT raises for a layer of this name in this model."""
    try:
        # It has no public name, and reads nothing of its object.
        LoraModel._check_target_module_compatiblity(None, config, model, name.rpartition(".")[2])  # type: ignore[arg-type]
    except ValueError:
        return True
    return False


def _return_more(model: PreTrainedModel, layers: dict[str, nn.Module]) -> set[str]:
    """The layers of a kind of their own that give more than a vector for each one given, such as routers."""
    more: set[str] = set()

    def see(name: str, layer: Any, hidden: Tensor, output: Any) -> None:
        if not isinstance(output, Tensor) or output.shape != (*hidden.shape[:-1], layer.out_features):
            more.add(name)

    own = [(name, layer) for name, layer in layers.items() if type(layer) not in (nn.Linear, Conv1D)]
    handles = [
        m.register_forward_hook(lambda layer, inputs, output, name=name: see(name, layer, inputs[0], output))
        for name, m in own
    ]
    try:
        if own:
            with evaluating(model), torch.no_grad():
                model(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return more
