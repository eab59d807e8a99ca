"""How near each part of keeptune comes to this machine's limit, and where the rest of the time goes.

    python benchmarks/roofline.py --quick      # under a minute, prints one JSON line last
    python benchmarks/roofline.py              # writes results/roofline.json, other processors' beside it

The limit is measured too: the rate of large matrix products in fp32 and bfloat16, and the bandwidth of memory. The
least time of a part is the larger of its operations over the bfloat16 rate and its bytes over the bandwidth, and that
of a whole the sum over its parts. Operations and bytes are counted in `limits.py`. Each whole is timed in several
rounds and then profiled once: the profile says which operators take the time.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import bench_meter
import bench_step
from limits import (
    Part,
    Shape,
    adamw,
    forward_and_backward,
    prefill,
    products,
    sampling,
    two_models,
    written_gradients,
)
from shared import finish, use_device

Work = Callable[[], object]
# What an operator does, by what its name holds; the first that fits.
KINDS = (
    ("matrix products", ("mm", "linear", "addmv", "gemm", "cutlass", "nvjet", "einsum")),
    ("attention", ("attention", "flash", "fmha")),
    ("optimizer", ("adam", "_foreach_norm", "clip")),
    ("copies and casts", ("copy", "cat", "clone", "fill", "zero", "memcpy", "memset", "index_put")),
    ("softmax, losses", ("softmax", "exp", "log", "nll", "amax", "max", "sum", "cumsum", "searchsorted")),
)


def synchronize() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(work: Work, rounds: int) -> list[float]:
    """Seconds of each round, after one that warms up."""
    found = []
    for number in range(rounds + 1):
        start = time.perf_counter()
        work()
        synchronize()
        if number:
            found.append(time.perf_counter() - start)
    return found


def machine_limits(device: str, *, quick: bool) -> dict[str, Any]:
    """The best rates of several rounds, with all rounds beside them."""
    import torch

    side, rounds = (1024 if quick else 2048) if device == "cpu" else 8192, 5 if quick else 15
    found: dict[str, Any] = {"side": side}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        rates = [2 * side**3 / at / 1e9 for at in seconds_of(lambda left=left, right=right: left @ right, rounds)]
        found[f"{name}_gflops"], found[f"{name}_gflops_rounds"] = max(rates), rates
    length = 2**25 if quick else 2**27  # beyond every cache
    source, target = torch.ones(length, device=device), torch.zeros(length, device=device)
    rates = [8 * length / at / 1e9 for at in seconds_of(lambda: target.copy_(source), rounds)]
    return found | {"bandwidth_gb": max(rates), "bandwidth_gb_rounds": rates}


def profiled(work: Work, top: int = 8) -> dict[str, Any]:
    """One run by operator: own milliseconds, by kind and of the most expensive ones."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    cuda = torch.cuda.is_available()
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiler:
        work()
        synchronize()
    own = {
        at.key: (at.self_device_time_total if cuda else at.self_cpu_time_total) / 1e3 for at in profiler.key_averages()
    }
    whole = sum(own.values())
    kinds: dict[str, float] = {}
    for key, taken in own.items():
        kind = next((kind for kind, marks in KINDS if any(mark in key.lower() for mark in marks)), "other operators")
        kinds[kind] = kinds.get(kind, 0.0) + taken
    calls = {at.key: at.count for at in profiler.key_averages()}
    ordered = sorted(own, key=lambda key: -own[key])[:top]
    return {
        "operators_ms": round(whole, 1),
        "shares": {kind: round(taken / whole, 3) for kind, taken in sorted(kinds.items(), key=lambda at: -at[1])},
        "top": [{"name": key, "ms": round(own[key], 1), "calls": calls[key]} for key in ordered],
    }


Whole = tuple[str, str, Work, list[Part]]  # name, size in words, the work, and what it must compute and move


def training(base: Any, tokenizer: Any, shape: Shape, rows: int, folder: str) -> Iterator[Whole]:
    """A step of keeptune's trainer, and its replay term alone."""
    from keeptune import sample_pool

    length, replay, alone = bench_step.T, rows // 2, bench_step.term_rows(rows)
    pool = sample_pool(base, tokenizer, f"{folder}/hidden", tokens=(alone + 1) * length, length=length)
    found = bench_step.trainers(base, tokenizer, pool, rows, folder)
    parts = forward_and_backward(shape, rows, length) + forward_and_backward(shape, replay, length)
    teacher = products("the base's head", shape.head, replay * length)
    yield "step", f"{rows} + {replay} rows of {length}", found[bench_step.KEEP], [*parts, teacher, adamw(shape)]
    parts = forward_and_backward(shape, alone, length)
    teacher = products("the base's head", shape.head, alone * length)
    yield (
        "replay term",
        f"{alone} rows of {length}",
        found[bench_step.OURS],
        [*parts, teacher, written_gradients(shape)],
    )


def writing(base: Any, tokenizer: Any, shape: Shape, rows: int, length: int, folder: str) -> Iterator[Whole]:
    """The sampler's rows, and a pool of as many: with a copy of the model, the base's states and the disk."""
    import torch

    from keeptune import sample_pool
    from keeptune.replay.engines.torch import TorchEngine

    size, parts = f"{rows} rows of {length}", sampling(shape, rows, length)
    engines = [TorchEngine(base, dtype=torch.bfloat16, rows=rows)]
    yield "sampler", size, lambda: engines[0].sample(rows, length, [0], seed=0), parts
    engines.clear()  # its copy of the model
    numbers = iter(range(10**9))

    def write() -> None:
        # An opening by name: the choice of one is made once, however large a pool is.
        at = f"{folder}/{next(numbers)}"
        sample_pool(base, tokenizer, at, tokens=rows * length, length=length, opening="start", dtype=torch.bfloat16)

    yield "pool", size, write, [*parts, *prefill(shape, rows, length)]


def metering(source: str, device: str, shape: Shape, *, quick: bool) -> Iterator[Whole]:
    """The drift of a model from its base, the main part of an audit."""
    tokens, found = bench_meter.works(device, quick=quick, source=source)
    yield "meter", f"{tokens} tokens of text", found["meter"], two_models(shape, tokens)


def read(whole: Whole, limits: dict[str, Any], rounds: int) -> dict[str, Any]:
    """One whole: its limit, its seconds, and where they go."""
    name, size, work, parts = whole
    rates = limits["bf16_gflops"] * 1e9, limits["bandwidth_gb"] * 1e9
    least = sum(part.seconds(*rates) for part in parts)
    seconds = seconds_of(work, rounds)
    taken = statistics.median(seconds)
    return {
        "what": name,
        "size": size,
        "gflop": round(sum(part.operations for part in parts) / 1e9, 2),
        "gigabytes": round(sum(part.bytes for part in parts) / 1e9, 3),
        "least_ms": round(1e3 * least, 1),
        "parts_ms": {part.name: round(1e3 * part.seconds(*rates), 2) for part in parts},
        "ms": round(1e3 * taken, 1),
        "ms_range": [round(1e3 * min(seconds), 1), round(1e3 * max(seconds), 1)],
        "share": round(least / taken, 3),
        "profile": profiled(work),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round, nothing written")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU where there is one")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rounds", type=int, help="timed rounds after one that warms up")
    arguments = parser.parse_args()
    device, quick = use_device(arguments.device), arguments.quick
    from keeptune.cli import _prepare_process

    _prepare_process()
    from keeptune import load_model, load_tokenizer

    rounds = arguments.rounds or (1 if quick else 7)
    limits = machine_limits(device, quick=quick)
    base, tokenizer = load_model(arguments.model).to(device), load_tokenizer(arguments.model)
    shape = Shape.of(base)
    rows, sampled, length = (2, 16, 16) if quick else (8, 64, 128) if device == "cpu" else (64, 1024, 128)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for group in (
            lambda: writing(base, tokenizer, shape, sampled, length, folder),
            lambda: metering(arguments.model, device, shape, quick=quick),
            lambda: training(base, tokenizer, shape, rows, folder),
        ):
            for whole in group():
                found.append(read(whole, limits, rounds))
                print(f"{found[-1]['what']}: {found[-1]['share']:.0%} of the limit", flush=True)
            gc.collect()
    limits = {name: rounded(value) for name, value in limits.items()}
    result = {"model": arguments.model, "rounds": rounds, "limits": limits, "wholes": found}
    finish("roofline", result, quick=quick)


def rounded(value: Any) -> Any:
    return [rounded(each) for each in value] if isinstance(value, list) else round(value, 1)


if __name__ == "__main__":
    main()
