"""Peak extra memory of the KL, forward and backward: fused, in chunks of tokens, against dense logits.

    python benchmarks/bench_memory.py --quick      # 8k tokens, vocabulary 128k, prints one JSON line last
    python benchmarks/bench_memory.py              # the grid; writes results/bench_memory.json

Extra is the peak above what stands before: hidden states, both heads. Each reading is a process of its own. Dense needs
memory proportional to its tokens, so it is read at two small sizes and the line through them is followed to the size in
question; the fused form is read at that size itself.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from shared import finish, use_device

WIDTH = 576
DENSE_TOKENS = (64, 192)
# A reading of more logits than this takes minutes on two cores.
LARGEST = 65_536 * 32_768


def peak_mebibytes(kind: str, tokens: int, vocabulary: int) -> float:
    """Extra MiB at the peak of one forward and backward, bf16 products as in training, in this process."""
    import torch

    from keeptune.objective import Head, HiddenTarget, forward_kl, fused_divergence

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    hidden, teacher_hidden = draw(tokens, WIDTH).requires_grad_(), draw(tokens, WIDTH)
    student = Head(weight_VD=draw(vocabulary, WIDTH).requires_grad_())
    teacher = Head(weight_VD=draw(vocabulary, WIDTH))
    before = _reset_peak(device)
    with torch.autocast(device, torch.bfloat16):
        if kind == "fused":
            loss = fused_divergence(hidden, student, HiddenTarget(hidden_ND=teacher_hidden, head=teacher))
        else:
            loss = forward_kl(student.logits(hidden), teacher.logits(teacher_hidden))
    loss.backward()
    return (_peak(device) - before) / 2**20


def _reset_peak(device: str) -> int:
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak(device: str) -> int:
    import torch

    return torch.cuda.max_memory_allocated() if device == "cuda" else _status("VmHWM")


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def read(kind: str, tokens: int, vocabulary: int) -> float:
    command = [sys.executable, __file__, "--kind", kind, "--tokens", str(tokens), "--vocabulary", str(vocabulary)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def dense_at(tokens: int, readings: list[float]) -> float:
    """The line through the two dense readings, followed to `tokens`."""
    slope = (readings[1] - readings[0]) / (DENSE_TOKENS[1] - DENSE_TOKENS[0])
    return readings[0] + slope * (tokens - DENSE_TOKENS[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one size, nothing written")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU where there is one")
    parser.add_argument("--kind", choices=("fused", "dense"), help="take one reading in this process")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--vocabulary", type=int)
    arguments = parser.parse_args()
    use_device(arguments.device)
    if arguments.kind:
        print(json.dumps(peak_mebibytes(arguments.kind, arguments.tokens, arguments.vocabulary)))
        return
    vocabularies = (131_072,) if arguments.quick else (32_768, 131_072, 262_144)
    sizes = (8192,) if arguments.quick else (1024, 8192, 65_536)
    grid: list[dict[str, Any]] = []
    for vocabulary in vocabularies:
        dense = [read("dense", tokens, vocabulary) for tokens in DENSE_TOKENS]
        for tokens in sizes:
            if tokens * vocabulary > LARGEST:
                continue
            fused = read("fused", tokens, vocabulary)
            line = {
                "vocabulary": vocabulary,
                "tokens": tokens,
                "fused_MiB": fused,
                "dense_MiB": dense_at(tokens, dense),
            }
            grid.append({**line, "ratio": round(fused / line["dense_MiB"], 4)})
    asked = next(line for line in grid if line["tokens"] == 8192 and line["vocabulary"] == 131_072)
    result = {
        "width": WIDTH,
        "hidden_gradient_MiB": "width x tokens x 4 bytes, twice, of every fused reading, is the result itself",
        "extra_memory_vs_dense": asked["ratio"],
        "grid": grid,
    }
    finish("bench_memory", result, quick=arguments.quick)


if __name__ == "__main__":
    main()
