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

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoConfig, AutoModelForCausalLM

from keeptune.errors import ConfigError
from keeptune.models.guarded import quiet, readable
from keeptune.models.loading import resolve_model
from keeptune.objective.fused import chunk_size

_FLOAT = 4
# A training step does this part of the matrix products of a benchmark (model FLOP utilization); PaLM, arXiv 2204.02311,
# appendix B, has .46 on TPUs; torchtitan's Llama 8B on H100 .33 to .40.
UTILIZATION = 0.4
_TILE = 4096, 32_768  # trl.kernels.chunked_logprob
_SHORT_ROW = 256  # as in `models.modeling.select_attention`


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The numbers of a model that memory and time follow from."""

    parameters: int
    trained: int
    layers: int
    layer: int
    """Parameters of one layer."""
    width: int
    vocabulary: int
    head_trained: bool
    cache: int
    """Numbers that a decoder keeps of each position."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of one forward pass."""

    count: int
    length: int


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


def read_config(source: str) -> Any:
    """The configuration of a model by name; its weights are not read."""
    with quiet(), readable(source):
        return AutoConfig.from_pretrained(resolve_model(source), trust_remote_code=False)


def shape_of(config: Any, lora: int | None = None) -> Shape:
    """The shape of a model, all of it trained or a LoRA of this rank on every linear layer but the head."""
    text = config.get_text_config()
    if getattr(config, "quantization_config", None) is not None:
        raise ConfigError(
            "the model is quantized, and estimates are of plain weights", "estimate the unquantized model"
        )
    with torch.device("meta"), quiet():
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not head]
    total = sum(p.numel() for p in model.parameters())
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    of_head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    outside = {id(p) for m in (head, model.get_input_embeddings()) for p in m.parameters()}
    inside = sum(p.numel() for p in model.parameters() if id(p) not in outside)
    return Shape(
        parameters=total,
        trained=sum(lora * (m.in_features + m.out_features) for m in linear) if lora else total,
        layers=text.num_hidden_layers,
        layer=inside // text.num_hidden_layers,
        width=text.hidden_size,
        vocabulary=text.vocab_size,
        head_trained=lora is None,
        cache=2 * text.num_hidden_layers * heads * of_head,
    )


def saved_bytes(
    config: Any, rows: Rows, dtype: torch.dtype, *, lora: int | None = None, gathered: bool = False, gpu: bool = False
) -> int:
    """Bytes that autograd saves in a forward pass up to the final hidden states: of one and two layers, then on a line.

    Under autocast they hold a copy of each weight in `dtype`. FSDP2 (`gathered`) frees such copies after their layer.
    """
    layers = config.get_text_config().num_hidden_layers
    one, two = (_saved_by(config, count, rows, dtype, lora, gathered, gpu) for count in (1, 2))
    return one + (layers - 1) * (two - one)


def _saved_by(
    config: Any, layers: int, rows: Rows, dtype: torch.dtype, lora: int | None, gathered: bool, gpu: bool
) -> int:
    small = copy.deepcopy(config)
    text = small.get_text_config()
    text.num_hidden_layers = layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:layers]
    attention = "eager" if rows.length <= _SHORT_ROW and not gpu else "sdpa"
    with torch.device("meta"), quiet():
        model: Any = AutoModelForCausalLM.from_config(small, attn_implementation=attention).train()
        if lora:
            _add_lora(model, lora)
    with FakeTensorMode(), quiet():
        own = _place(model, dtype if gathered else torch.float32)
        ids = torch.zeros(rows.count, rows.length, dtype=torch.int64)
        narrow = dtype.itemsize == 2 and not gathered
        with _counting(own) as found, torch.autocast("cpu", dtype if narrow else torch.bfloat16, enabled=narrow):
            hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        del hidden
        return sum(found.values())


def _place(model: nn.Module, dtype: torch.dtype) -> set[int]:
    """Put tensors without values that count as the CPU's in place of those of a model on `meta`; their storages."""
    made: dict[int, Tensor] = {}
    for module in model.modules():
        for place in (module._parameters, module._buffers):
            for name, old in place.items():
                if old is None:
                    continue
                if id(old) not in made:
                    own = isinstance(old, nn.Parameter)
                    new = torch.empty(old.shape, dtype=dtype if own else old.dtype)
                    made[id(old)] = nn.Parameter(new, old.requires_grad) if own else new
                place[name] = made[id(old)]  # type: ignore[assignment]
    return {tensor.untyped_storage()._cdata for tensor in made.values()}


@contextmanager
def _counting(own: set[int]) -> Iterator[dict[int, int]]:
    """Bytes of the tensors that autograd saves in the block, by storage, without those of the model itself."""
    found: dict[int, int] = {}
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own and storage._cdata not in found:
            found[storage._cdata] = storage.nbytes()
            kept.append(tensor)  # so that no later storage takes its place
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def _add_lora(model: Any, rank: int) -> None:
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 — slow

    get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))


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
