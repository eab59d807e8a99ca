"""One run on a machine with a GPU, of at most ten minutes, and one JSON of what it showed.

    python benchmarks/gpu.py                 # writes results/gpu.json
    python benchmarks/gpu.py --device cpu --size tiny --out FILE     # the same end to end on a CPU, small

Needs torch, transformers and accelerate, no network, and this checkout; TRL, PEFT and datasets may lie beside as wheels
(--wheels FOLDER). Runs tests/gpu, bench_step, bench_memory and bench_sample on a random model of 1 B's shape, and holds
the replay term against Liger's chunked JSD where liger-kernel is installed. bench_step holds it against TRL's
distillation. What fails or runs out of time is recorded with its reason, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SECONDS = 600
# layers, width, heads, heads of keys, words: Llama 3.2 1B, and a shape that a CPU does in a minute
SHAPES = {"1b": (16, 2048, 32, 8, 128_256), "tiny": (2, 64, 4, 2, 4096)}
LIGER_TOKENS = {"1b": 8192, "tiny": 256}


def make_model(size: str, folder: Path) -> None:
    """A random Llama of the shape, in bfloat16, with a byte tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.helpers.models import make_tokenizer

    layers, width, heads, of_keys, words = SHAPES[size]
    config = LlamaConfig(
        vocab_size=words,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=of_keys,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


def liger(size: str, device: str) -> dict[str, Any]:
    """Seconds of Liger's chunked JSD and of keeptune's fused form, forward and backward, and their peak memory."""
    import torch
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    from keeptune.objective import Head, HiddenTarget, fused_divergence

    _, width, _, _, words = SHAPES[size]
    tokens, dtype = LIGER_TOKENS[size], torch.bfloat16
    draw = lambda *shape: torch.randn(*shape, device=device, dtype=dtype)  # noqa: E731
    hidden, weight = draw(tokens, width).requires_grad_(), draw(words, width).requires_grad_()
    teacher, base = draw(tokens, width), draw(words, width)
    labels = torch.randint(words, (tokens,), device=device)
    theirs = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, compiled=device == "cuda")

    def of_liger() -> torch.Tensor:
        return theirs(hidden, weight, teacher, base, labels)

    def of_keeptune() -> torch.Tensor:
        target = HiddenTarget(hidden_ND=teacher, head=Head(weight_VD=base))
        return fused_divergence(hidden, Head(weight_VD=weight), target, "jensen_shannon")

    found: dict[str, Any] = {"tokens": tokens, "vocabulary": words}
    for name, compute in (("liger", of_liger), ("keeptune", of_keeptune)):
        seconds = []
        for _ in range(4):  # the first one compiles
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
                torch.cuda.synchronize()
            start = time.perf_counter()
            compute().backward()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
            hidden.grad = weight.grad = None
        found[name] = {"seconds": seconds[1:]}
        if device == "cuda":
            found[name]["peak_MiB"] = torch.cuda.max_memory_allocated() / 2**20
    return found


def parts(size: str, device: str, model: Path) -> dict[str, list[str]]:
    """Commands by name, the most telling ones first."""
    bench, python = ROOT / "benchmarks", sys.executable
    quick = ["--quick", "--device", device]
    return {
        "tests": [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests" / "gpu")],
        "step": [python, str(bench / "bench_step.py"), *quick],
        "memory": [python, str(bench / "bench_memory.py"), *quick],
        "sample": [python, str(bench / "bench_sample.py"), *quick, "--model", str(model)],
        "liger": [python, __file__, "--size", size, "--device", device, "--part", "liger"],
    }


def run(name: str, command: list[str], seconds: float) -> dict[str, Any]:
    """One part: its exit code, its last line as JSON if it is, and how it ended."""
    start = time.monotonic()
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths}
    if seconds < 5:
        return {"code": None, "said": "no time was left"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return {"code": None, "said": f"stopped after {seconds:.0f} s", "seconds": round(seconds)}
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines() or [""]
    result: dict[str, Any] = {"code": done.returncode, "seconds": round(time.monotonic() - start, 1), "said": lines[-1]}
    if name != "tests" and done.returncode == 0:
        result["result"] = json.loads(result.pop("said"))
    elif done.returncode:
        result["end_of_stderr"] = done.stderr[-2000:]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--size", choices=SHAPES, default="1b")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "gpu.json")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install first, without a network")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all parts together")
    parser.add_argument("--only", nargs="*", help="parts to run; default all")
    parser.add_argument("--part", choices=("liger",), help="run one part in this process and print its JSON")
    arguments = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "src")]
    if arguments.part:
        if find_spec("liger_kernel") is None:
            print(json.dumps({"left out": "liger-kernel is not installed"}))
            return
        print(json.dumps(liger(arguments.size, arguments.device)))
        return
    until = time.monotonic() + arguments.seconds
    if arguments.wheels:
        wheels = [str(path) for path in sorted(arguments.wheels.glob("*.whl"))]
        subprocess.run([sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", *wheels], check=True)
    if arguments.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    found: dict[str, Any] = {"size": arguments.size, "device": arguments.device}
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        make_model(arguments.size, model)
        for name, command in parts(arguments.size, arguments.device, model).items():
            if arguments.only and name not in arguments.only:
                continue
            found[name] = run(name, command, until - time.monotonic())
            print(f"{name}: {json.dumps(found[name])[:300]}", flush=True)
            _write(arguments.out, found)


def _write(out: Path, found: dict[str, Any]) -> None:
    """All that is known so far: a run that is cut short keeps its parts."""
    from keeptune.storage import write_json
    from keeptune.system import machine, versions

    write_json(out, {**found, "versions": versions(), "machine": machine()})


if __name__ == "__main__":
    main()
