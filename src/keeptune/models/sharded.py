"""Models whose weights are spread over processes (FSDP2), each of which loads its shards and no more.

Every process must run the same forward passes: each gathers a layer's weights from all of them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from keeptune.errors import ConfigError
from keeptune.system import free_bytes


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP2 spreads the model's weights over processes."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def whole(tensor: Tensor) -> Tensor:
    """The tensor, gathered if it is spread over processes, which all call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def reshard(model: nn.Module) -> None:
    """Free what FSDP2 gathered. It leaves the outermost modules whole after a forward pass, for a backward pass that
    may not follow; an optimizer made then would hold parameters that training does not update."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
            if any(not isinstance(parameter, DTensor) for parameter in module.parameters(recurse=False)):
                # Such as the last norm, in one group with a head that was never called: their forward has no end.
                module.set_reshard_after_forward(True, recurse=False)
                module.reshard()
                module.set_reshard_after_forward(False, recurse=False)


def without_grad(model: nn.Module) -> Any:
    """`inference_mode`, or `no_grad` for sharded weights: FSDP2 keeps what it gathered for training."""
    return torch.no_grad() if is_sharded(model) else torch.inference_mode()


def sharding(source: str, config: Any, *, narrow: bool) -> dict[str, Any]:
    """Arguments of `from_pretrained` that spread the weights over all processes while they are read.

    `narrow`: layers are gathered and multiplied in bfloat16. Under autocast alone, every process would keep a bfloat16
    copy of all layers for the backward pass.

    Raises `ConfigError` if there is one process, if the weights are quantized, or if this transformers cannot.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        raise ConfigError(
            f"{source} is to be spread over processes, and there is one",
            "start several with torchrun --nproc_per_node N -m keeptune ..., or leave out --shard",
        )
    if getattr(config, "quantization_config", None) is not None:
        raise ConfigError(f"{source} is quantized, and packed weights cannot be spread (FSDP2)", "leave out --shard")
    try:
        from transformers.distributed.configuration_utils import DistributedConfig  # noqa: PLC0415

        spread = DistributedConfig(fsdp_size=dist.get_world_size(), fsdp_mixed_precision=narrow)
        return {"distributed_config": spread}
    except (ImportError, TypeError) as error:
        raise ConfigError("this transformers cannot load a model in shards", "install transformers 5.23") from error


def place(model: Any, device: torch.device) -> Any:
    """The model on this process's device; one that is sharded or quantized lies where it was loaded.

    Raises `ConfigError` if it does not fit there.
    """
    if device.type == "cpu" or is_sharded(model) or getattr(model, "is_quantized", False):
        return model
    size = sum(tensor.numel() * tensor.itemsize for tensor in (*model.parameters(), *model.buffers()))
    if size > (free := free_bytes(device)):
        raise ConfigError(
            f"the base takes {size / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free on {device}",
            "spread it over several GPUs: torchrun --nproc_per_node N -m keeptune replay ... --shard, or --engine vllm"
            " --tensor-parallel N",
        )
    return model.to(device)
