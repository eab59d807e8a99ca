"""What `--estimate` prints: memory of each process, disk and time, from the model's configuration alone."""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from keeptune.estimate import Estimate
    from keeptune.runs.settings import TuneSettings

_STEPS = 1000


def of_tuning(settings: "TuneSettings", gpus: int, tflops: float | None) -> None:
    """Print what `keeptune tune` would take on so many GPUs; 0 is one process on this CPU."""
    from pathlib import Path

    from keeptune.errors import ConfigError
    from keeptune.estimate import estimate_tuning, teacher_for_disk
    from keeptune.estimate.activations import Rows
    from keeptune.estimate.shape import read_config
    from keeptune.storage import free_disk

    if settings.load_in:
        raise ConfigError("--estimate is of plain weights", "leave out the quantization, which takes less")
    config, steps, dtype = read_config(settings.model), settings.steps or _STEPS, _dtype(gpus)
    free = free_disk(Path(settings.out))
    tokens = settings.replay_tokens
    teacher = teacher_for_disk(config, tokens, free, dtype=dtype, top_k=settings.top_k)
    if settings.teacher in ("hidden", "topk"):
        teacher = settings.teacher
    found = estimate_tuning(
        config,
        task=Rows(count=settings.batch_size, length=settings.max_length),
        replay=Rows(count=settings.replay_rows or settings.batch_size, length=settings.replay_length)
        if settings.lambda_
        else None,
        steps=steps * settings.accumulate,
        pool_tokens=tokens if settings.lambda_ else 0,
        lora=settings.lora,
        dtype=dtype,
        processes=max(1, gpus),
        sharded=settings.shard,
        gpu=gpus > 0,
        top_k=settings.top_k if teacher == "topk" else None,
    )
    note = "" if settings.steps else f" ({_STEPS} steps; --steps says another number)"
    _print(found, gpus, dtype, tflops, f"teacher by disk: {teacher}, with {_size(free)} free", note)


def of_pool(model: str, out: "Path", flags: Any, gpus: int, tflops: float | None) -> None:
    """Print what `keeptune replay` would take on so many GPUs; 0 is one process on this CPU."""
    from keeptune.estimate import estimate_pool, teacher_for_disk
    from keeptune.estimate.shape import read_config
    from keeptune.storage import free_disk

    config, dtype, free = read_config(model), _dtype(gpus), free_disk(out)
    found = estimate_pool(
        config,
        tokens=flags.tokens,
        length=flags.length,
        rows=flags.rows_per_shard or (1024 if gpus else 128),
        dtype=dtype,
        processes=max(1, gpus),
        sharded=flags.shard,
        top_k=flags.top_k if flags.predictions == "topk" else None,
    )
    teacher = teacher_for_disk(config, flags.tokens, free, dtype=dtype, top_k=flags.top_k)
    _print(found, gpus, dtype, tflops, f"predictions by disk: {teacher}, with {_size(free)} free", "")


def _dtype(gpus: int) -> Any:
    import torch

    from keeptune.models.modeling import has_bf16

    return torch.bfloat16 if gpus or has_bf16("cpu") else torch.float32


def _print(found: "Estimate", gpus: int, dtype: Any, tflops: float | None, teacher: str, note: str) -> None:
    import torch

    from keeptune.estimate import UTILIZATION, matmul_rate
    from keeptune.log import duration

    device = torch.accelerator.current_accelerator() if gpus and torch.accelerator.is_available() else None
    rate = tflops * 1e12 if tflops else matmul_rate(device or torch.device("cpu"), dtype)
    whose = "given" if tflops else "measured here on matrix products"
    if gpus and device is None and not tflops:
        whose += ", which is no GPU: give --tflops"
    lines = [f"memory of each of {gpus} GPUs:" if gpus else "memory of one process on this CPU:"]
    lines += [f"  {name:22} {_size(size):>12}" for name, size in found.memory.items() if size]
    lines += [f"  {'peak':22} {_size(found.peak):>12}", "disk:"]
    lines += [f"  {name:22} {_size(size):>12}" for name, size in found.disk.items() if size]
    seconds = found.seconds(rate, max(1, gpus))
    lines += [
        f"  {teacher}",
        f"time: {duration(seconds)}{note}, {found.flop:.3g} FLOP at {UTILIZATION:.0%} of"
        f" {rate / 1e12:.3g} TFLOP/s ({whose})",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
