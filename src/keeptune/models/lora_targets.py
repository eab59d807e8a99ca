"""Which linear layers a LoRA on all of them is put on: those that text runs through and that PEFT wraps."""

from __future__ import annotations

import re
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


def all_linear(model: PreTrainedModel, **settings: Any) -> LoraConfig:
    """`LoraConfig(target_modules="all-linear")` without the layers on which it would fail or do nothing; says which.

    Left out are a vision tower and whatever else text does not run through, layers whose weight the model reads without
    calling them (Mamba's `dt_proj`), and those that PEFT refuses in an architecture (Mamba's `out_proj`).
    """
    config = LoraConfig(**settings, target_modules="all-linear")
    idle = anatomy_of(model).idle
    head = model.get_output_embeddings()
    names = [name for name, m in model.named_modules() if isinstance(m, (nn.Linear, Conv1D)) and m is not head]
    unused = [name for name in names if any(name == part or name.startswith(f"{part}.") for part in idle)]
    routers = _return_more(model)
    refused = [name for name in names if name not in unused and (name in routers or _refused(config, model, name))]
    for left_out, reason in ((unused, "text does not run through them"), (refused, "PEFT cannot wrap them in it")):
        if left_out:
            shown = sorted({re.sub(r"\d+", "*", name) for name in left_out})
            more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
            logger.info(
                f"LoRA leaves out {len(left_out)} of the {len(names)} linear layers of {type(model).__name__}, because"
                f" {reason}: {', '.join(shown[:5])}{more}"
            )
    if unused or refused:
        patterns = {re.sub(r"\d+", r"\\d+", re.escape(name)) for name in (*unused, *refused)}
        config.exclude_modules = "|".join(sorted(patterns))
    return config


def _refused(config: LoraConfig, model: PreTrainedModel, name: str) -> bool:
    """Whether PEFT raises for a layer of this name in this model."""
    try:
        # It has no public name, and reads nothing of its object.
        LoraModel._check_target_module_compatiblity(None, config, model, name.rpartition(".")[2])  # type: ignore[arg-type]
    except ValueError:
        return True
    return False


def _return_more(model: PreTrainedModel) -> set[str]:
    """Names of the linear layers whose output is no tensor, such as Llama 4's routers: PEFT adds to a tensor."""
    more: set[str] = set()

    def see(name: str, output: Any) -> None:
        if not isinstance(output, Tensor):
            more.add(name)

    own = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear) and type(m) is not nn.Linear]
    handles = [m.register_forward_hook(lambda _, __, output, name=name: see(name, output)) for name, m in own]
    if own:
        with evaluating(model), torch.no_grad():
            model(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=model.device), use_cache=False)
    for handle in handles:
        handle.remove()
    return more
