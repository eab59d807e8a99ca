"""What a run of several processes needs beyond what the launcher and the Trainer do for it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.models.adapters import adapter_off
from keeptune.models.modeling import head_of
from keeptune.models.sharded import is_sharded
from keeptune.objective import Head
from keeptune.replay.teachers import frozen_head
from keeptune.train.context import Host

ZERO_3 = (
    "DeepSpeed's ZeRO-3 gathers weights only inside its own engine, which does not exist before training, and the base"
    " is asked for its predictions before"
)
ZERO_3_FIX = "use ZeRO-2 (recipes/zero2.json), or shard with FSDP2 instead: keeptune tune --shard, recipes/fsdp2.yaml"


def zero_stage(deepspeed: Any) -> int:
    """The ZeRO stage of DeepSpeed's configuration, an object or the path of its JSON; 0 if it has none."""
    try:
        content = deepspeed if isinstance(deepspeed, dict) else json.loads(Path(deepspeed).read_text(encoding="utf-8"))
        return int(content["zero_optimization"]["stage"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0  # DeepSpeed says what is wrong with it


def all_agree(verdict: bool, device: torch.device) -> bool:
    """Whether `verdict` is true on every rank. All ranks must call it, and none returns before the last one does."""
    if not dist.is_initialized():
        return verdict
    agreed = torch.tensor(int(verdict), device=device)
    dist.all_reduce(agreed, dist.ReduceOp.MIN)
    return bool(agreed)


@contextmanager
def on_device(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Hold `model` on `device` for the block: a model that is to be sharded waits on the CPU until training."""
    home = next(model.parameters()).device
    if home == device or is_sharded(model):
        yield
        return
    model.to(device)
    try:
        yield
    finally:
        model.to(home)


def teachers_head(model: nn.Module, host: Host) -> Head:
    """The base's head on the training device, which neither training nor sharding can change."""
    if not host.sharded:
        return frozen_head(model, host.dtype)
    with adapter_off(model):
        head = head_of(model).detached(host.dtype)
    bias_V = None if head.bias_V is None else head.bias_V.to(host.device)
    return replace(head, weight_VD=head.weight_VD.to(host.device), bias_V=bias_V)


def check_launch(trainer: Any) -> None:
    """Refuse ways to launch a run that keep nothing, and warn if FSDP was asked for but is not used.

    Raises:
        ConfigError: DataParallel, DeepSpeed's ZeRO-3, FSDP1, or a process without the base's weights, which it needs
            until training starts.
    """
    if trainer.args.n_gpu > 1:
        raise ConfigError(
            f"the trainer copies the model to {trainer.args.n_gpu} GPUs in one process (DataParallel), which loses the "
            "replay term",
            "start one process for each GPU with torchrun --nproc_per_node, or set CUDA_VISIBLE_DEVICES to one GPU",
        )
    if trainer.is_deepspeed_enabled and trainer.accelerator.state.deepspeed_plugin.zero_stage == 3:
        raise ConfigError(ZERO_3, ZERO_3_FIX)
    asked = trainer.args.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if asked and not trainer.is_fsdp_enabled and trainer.is_world_process_zero():
        logger.warning(
            "FSDP is asked for but not used: accelerate shards only over processes that have an accelerator each"
        )
    if not trainer.is_fsdp_enabled:
        return
    plugin = trainer.accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2:
        raise ConfigError("FSDP1 is not supported", "set fsdp_version to 2")
    if plugin.cpu_ram_efficient_loading:
        raise ConfigError(
            "FSDP's cpu_ram_efficient_loading leaves all ranks but the first without the base's weights until training,"
            " and the base is asked for its predictions before",
            "set fsdp_cpu_ram_efficient_loading to false; or, where memory is short, start without accelerate's FSDP"
            " and load the model in shards: keeptune tune --shard, keeptune.load_model(..., shard=True)",
        )
    if is_sharded(trainer.model):
        raise ConfigError("the model is in shards already, and accelerate's FSDP is asked for", "leave out one of them")


def sum_over_ranks(value: float, device: torch.device) -> float:
    """The sum of every rank's `value`, the same number on all of them. All ranks must call it."""
    if not dist.is_initialized():
        return value
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total)
