"""What a run or a pool will take, before anything is loaded: memory of each process, disk and time.

Everything follows from the model's configuration. Activations are not modeled but counted: the library's own forward
pass runs on tensors without values, of one layer and of two, and what autograd saves is summed; layers are alike. The
rest are these formulas, with P parameters, T of them trained, D width, V vocabulary, W processes:

| what | bytes | source |
|---|---|---|
| weights, gradients, Adam | 4 P, 4 T, 8 T; / W in shards | Rajbhandari et al. 2020, arXiv 1910.02054, § 3 |
| layers gathered by FSDP2 | two layers, and the output layer | Zhao et al. 2023, arXiv 2304.11277, § 3.3 |
| the base's head, if the head is trained | V D of the products' dtype | `replay.teachers.frozen_head` |
| logits | those of a chunk | `objective.fused.chunk_size`; `trl.kernels.chunked_logprob` for the task |
| gradient of the head | 4 V D; twice while backward scales the replay term's | `objective.fused` |
| stored predictions of a pool token | D of the dtype, or 6 k + 2 | `replay.teachers` |
| time | (6 T + 4 (P − T)) FLOP a token, 2 P where only read | Kaplan et al. 2020, arXiv 2001.08361, table 1 |

The peak is where the replay term or the task's loss goes back through the head, whichever takes more.
benchmarks/bench_estimate.py holds it against the measured peak. A number of FLOP is no time: `rate` is measured here on
matrix products, or given.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from keeptune.estimate.activations import Rows, saved_bytes
from keeptune.estimate.shape import Shape, shape_of
from keeptune.objective.fused import chunk_size

_FLOAT = 4
# A training step does this part of the matrix products of a benchmark (model FLOP utilization); PaLM, arXiv 2204.02311,
# appendix B, has .46 on TPUs; torchtitan's Llama 8B on H100 .33 to .40.
UTILIZATION = 0.4
_TILE = 4096, 32_768  # trl.kernels.chunked_logprob


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes of each process by what holds them, bytes of disk, and FLOP of all processes together."""

    memory: dict[str, int]
    disk: dict[str, int]
    flop: float

    @property
    def peak(self) -> int:
        """Bytes of one process at the peak."""
        return sum(self.memory.values())

    def seconds(self, rate: float, processes: int) -> float:
        """Time at so many FLOP a second of each process."""
        return self.flop / (rate * UTILIZATION * processes)


def estimate_tuning(
    config: Any,
    *,
    task: Rows,
    replay: Rows | None,
    steps: int,
    pool_tokens: int,
    lora: int | None = None,
    dtype: torch.dtype = torch.bfloat16,
    processes: int = 1,
    sharded: bool = False,
    gpu: bool = False,
    top_k: int | None = None,
    checkpoints: int = 2,
) -> Estimate:
    """Of `keeptune tune`: fp32 weights, products in `dtype`, one micro-batch a step on each process.

    Args:
        task, replay: rows of a micro-batch on each process; `replay` is None where λ is 0.
        pool_tokens: tokens of the pool, stored as hidden states, or as `top_k` tokens.
    """
    shape = shape_of(config, lora)
    part = processes if sharded else 1
    head = shape.vocabulary * shape.width
    gathered = (2 * shape.layer + head) * dtype.itemsize if sharded and processes > 1 else 0
    bytes_of = partial(saved_bytes, config, dtype=dtype, lora=lora, gathered=sharded and processes > 1, gpu=gpu)
    saved = {"activations, task": bytes_of(task)}
    tokens = [task.count * task.length]
    if replay is not None:
        saved["activations, replay"] = bytes_of(replay)
        tokens.append(replay.count * replay.length)
    of_head = head * _FLOAT if shape.head_trained else 0
    moments = [_task_backward(saved, shape, part, tokens, dtype, gpu, of_head)]
    if replay is not None:
        chunk = chunk_size(tokens[1], shape.vocabulary, dtype, torch.device("cuda" if gpu else "cpu"))
        moments.append(
            {
                **saved,
                "logits of a chunk": chunk * shape.vocabulary * 2 * dtype.itemsize,
                "gradient of the head": 2 * of_head,
            }
        )
    later = max(moments, key=lambda moment: sum(moment.values()))
    memory = {
        "weights": shape.parameters * _FLOAT // part + (0 if lora is None else shape.trained * _FLOAT // part),
        "optimizer": 2 * shape.trained * _FLOAT // part,
        "base's head": head * dtype.itemsize if replay is not None and shape.head_trained else 0,
        "layers gathered": gathered,
        **later,
    }
    a_step = tokens[0] * (6 * shape.trained + 4 * (shape.parameters - shape.trained) if lora else 6 * shape.parameters)
    flop = steps * processes * a_step * sum(tokens) / tokens[0] + pool_tokens * 4 * shape.parameters
    stored = shape.width * dtype.itemsize if top_k is None else 6 * top_k + 2
    checkpoint = (shape.trained if lora else shape.parameters) * _FLOAT + 2 * shape.trained * _FLOAT
    disk = {
        "pool": pool_tokens * (stored + 4),
        "checkpoints": checkpoints * checkpoint,
        "model": (shape.trained if lora else shape.parameters) * _FLOAT,
    }
    return Estimate(memory=memory, disk=disk, flop=float(flop))


def _task_backward(
    saved: dict[str, int], shape: Shape, part: int, tokens: list[int], dtype: torch.dtype, gpu: bool, of_head: int
) -> dict[str, int]:
    """Bytes while the task's loss goes back through the head: autograd has gone through the replay term before.

    TRL holds a tile of at most 4096 tokens × 32 768 words, in torch with seven copies of it in fp32 and a mask.
    """
    tile = min(tokens[0], _TILE[0]) * min(shape.vocabulary, _TILE[1])
    return {
        "activations, task": saved["activations, task"],
        "gradients": shape.trained * _FLOAT // part if len(tokens) > 1 else 0,
        "logits of a chunk": tile * (dtype.itemsize + (0 if gpu else 29)) + _TILE[1] * shape.width * dtype.itemsize,
        "gradient of the head": of_head,
    }


def estimate_pool(
    config: Any,
    *,
    tokens: int,
    length: int,
    rows: int,
    dtype: torch.dtype = torch.bfloat16,
    processes: int = 1,
    sharded: bool = False,
    top_k: int | None = None,
) -> Estimate:
    """Of `keeptune replay`: fp32 weights, a copy of them in `dtype` to decode with unless they are in shards."""
    shape = shape_of(config)
    part = processes if sharded else 1
    copied = 0 if sharded else shape.parameters * dtype.itemsize
    head = shape.vocabulary * shape.width
    memory = {
        "weights": shape.parameters * _FLOAT // part,
        "copy to decode with": copied,
        "layers gathered": (2 * shape.layer + head) * dtype.itemsize if sharded and processes > 1 else 0,
        "keys and values": rows * (1 + length) * shape.cache * dtype.itemsize,
        "logits": rows * shape.vocabulary * (dtype.itemsize + 3 * _FLOAT),
        "hidden states": 2 * rows * length * shape.width * dtype.itemsize if top_k is None else 0,
    }
    stored = shape.width * dtype.itemsize if top_k is None else 6 * top_k + 2
    return Estimate(memory=memory, disk={"pool": tokens * (stored + 4)}, flop=4.0 * shape.parameters * tokens)


def teacher_for_disk(config: Any, tokens: int, free: int, *, dtype: torch.dtype, top_k: int) -> str:
    """The teacher that `auto` takes for a pool by the disk alone: `hidden`, exact, or `topk`; `none` if neither fits.

    The stored outputs may take half of the free disk, as in `replay.choose`.
    """
    width = config.get_text_config().hidden_size
    sizes = {"hidden": tokens * width * dtype.itemsize, "topk": tokens * (6 * top_k + 2)}
    return next((name for name, size in sizes.items() if 2 * size <= free), "none")


def matmul_rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """FLOP a second of matrix products of 2048 × 2048 on this device, measured now."""
    square = torch.randn(2048, 2048, device=device, dtype=dtype)

    def wait() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    square @ square
    start, done = wait(), 0
    while wait() - start < seconds:
        square @ square
        done += 1
    return done * 2 * 2048**3 / (wait() - start)
