"""Estimated memory of training against the measured peak: SmolLM2 and small random models, full and LoRA, on a CPU.

    python benchmarks/bench_estimate.py --quick      # two settings of a small model, prints one JSON line last
    python benchmarks/bench_estimate.py              # all settings; writes results/bench_estimate.json; resumes
    python benchmarks/bench_estimate.py --paper      # 1 B to 405 B on 1 to 256 GPUs, as a table; nothing is measured

Each setting is a process of its own: three steps of `keeptune.runs.run.tune`. Measured is the peak of its resident
memory while it trains, above what it was before the base was loaded. An estimate is to lie within 15 % of it. What was
measured is kept in results/bench_estimate.jsonl, and the estimates are made anew from the present formulas.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from shared import RESULTS, finish, use_device

MEASURED = RESULTS / "bench_estimate.jsonl"
BOUND = 0.15
MiB = 2**20
# (model, LoRA rank or 0, rows of a micro-batch, tokens of a task row); a model is smollm2 or layers x width x words.
SETTINGS = [
    ("smollm2", 0, 1, 128),
    ("smollm2", 0, 4, 128),
    ("smollm2", 0, 2, 512),
    ("smollm2", 16, 1, 128),
    ("smollm2", 16, 4, 128),
    ("smollm2", 16, 2, 512),
    ("smollm2", 128, 2, 256),
    ("2x256x131072", 0, 4, 128),
    ("2x256x131072", 16, 4, 128),
    ("2x128x262144", 0, 2, 256),
    ("8x512x32768", 0, 4, 256),
    ("8x512x32768", 16, 8, 256),
    ("4x256x65536", 0, 16, 128),
    ("12x384x8192", 0, 8, 512),
]
# layers, width, width of the MLP, heads, tied head
LLAMA_3 = {
    "1 B": (16, 2048, 8192, 32, True),
    "8 B": (32, 4096, 14_336, 32, False),
    "70 B": (80, 8192, 28_672, 64, False),
    "405 B": (126, 16_384, 53_248, 128, False),
}
GPUS = (1, 2, 4, 8, 16, 64, 256)
QUICK = [("4x128x32768", 0, 4, 64), ("4x128x32768", 8, 4, 64)]
REPLAY_LENGTH = 64
STEPS = 3


def measure(model: str, lora: int, rows: int, length: int, work: Path) -> float:
    """The peak of one setting in this process, MiB."""
    # glibc keeps freed blocks below 32 MiB: with this it returns them, and the peak is of what is in use.
    ctypes.CDLL("libc.so.6").mallopt(-3, 65_536)
    from keeptune.system import release

    for number in range(4):
        (work / f"{number}.txt").write_text(_text(number), encoding="utf-8")
    base = _make(model, work / "base")
    # The libraries' code and buffers come into memory when they are first used: not by the model that is measured.
    _peak_of(_make("1x64x300", work / "small"), lora, 1, 32, work, work / "warm")
    release()
    before = _status("VmRSS")
    peak = _peak_of(base, lora, rows, length, work, work / "run")
    return round((peak - before) / MiB, 1)


def estimated(model: str, lora: int, rows: int, length: int) -> dict[str, float]:
    """The estimate of one setting and its parts, MiB."""
    import torch

    from keeptune.estimate import estimate_tuning
    from keeptune.estimate.activations import Rows
    from keeptune.estimate.shape import read_config
    from keeptune.models.modeling import has_bf16

    found = estimate_tuning(
        _config(model) if "x" in model else read_config(model),
        task=Rows(count=rows, length=length),
        replay=Rows(count=rows, length=REPLAY_LENGTH + 1),
        steps=STEPS,
        pool_tokens=16 * REPLAY_LENGTH,
        lora=lora or None,
        dtype=torch.bfloat16 if has_bf16("cpu") else torch.float32,
    )
    return {name: round(size / MiB, 1) for name, size in {"estimated_MiB": found.peak, **found.memory}.items()}


def _peak_of(base: str, lora: int, rows: int, length: int, texts: Path, out: Path) -> int:
    """Bytes of resident memory at the peak of a few steps; what was loaded and written before them is no part of it."""
    from transformers import TrainerCallback

    from keeptune.runs.run import tune
    from keeptune.runs.settings import TuneSettings
    from keeptune.system import release

    peaks: list[int] = []

    class Peak(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 0:
                release()
                Path("/proc/self/clear_refs").write_text("5")

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            peaks.append(_status("VmHWM"))

    settings = TuneSettings(
        model=base,
        data=str(texts / "*.txt"),
        out=str(out),
        lora=lora or None,
        steps=STEPS,
        batch_size=rows,
        max_length=length,
        replay_length=REPLAY_LENGTH,
        replay_tokens=16 * REPLAY_LENGTH,
        drift_rows=4,
        drift_every=0,
        held_out_rows=2,
        checkpoint_every=0,
        opening="start",
        teacher="hidden",
    )
    tune(settings, extra_callbacks=[Peak()])
    return peaks[-1]


def paper() -> str:
    """Llama 3's shapes: GiB of each GPU at the peak, one row of 2048 tokens and one of replay on each, FSDP2."""
    from transformers import LlamaConfig

    from keeptune.estimate import estimate_tuning
    from keeptune.estimate.activations import Rows

    lines = [
        "| model | trained | " + " | ".join(f"{gpus} GPUs" for gpus in GPUS) + " |",
        "|---" * (2 + len(GPUS)) + "|",
    ]
    for name, (layers, width, wide, heads, tied) in LLAMA_3.items():
        config = LlamaConfig(
            vocab_size=128_256,
            hidden_size=width,
            intermediate_size=wide,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=8,
            tie_word_embeddings=tied,
        )
        for lora in (None, 16):
            peaks = [
                estimate_tuning(
                    config,
                    task=Rows(count=1, length=2048),
                    replay=Rows(count=1, length=128),
                    steps=1000,
                    pool_tokens=1_000_000,
                    lora=lora,
                    processes=gpus,
                    sharded=gpus > 1,
                    gpu=True,
                ).peak
                for gpus in GPUS
            ]
            sizes = " | ".join(f"{peak / 2**30:,.0f}" for peak in peaks)
            lines.append(f"| {name} | {'all' if lora is None else f'LoRA {lora}'} | {sizes} |")
    return "\n".join(lines)


def _make(model: str, folder: Path) -> str:
    """A random Llama of this shape with a byte tokenizer, or the name of a real model."""
    if "x" not in model:
        return model
    from transformers import LlamaForCausalLM

    from tests.helpers.models import make_tokenizer

    LlamaForCausalLM(_config(model)).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


def _config(model: str) -> Any:
    from transformers import LlamaConfig

    layers, width, vocabulary = (int(number) for number in model.split("x"))
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 64,
        tie_word_embeddings=True,
        initializer_range=0.15,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )


def _text(number: int) -> str:
    return " ".join(f"Sentence {n} of {number}: the number {n * number} is a product." for n in range(800))


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two settings, nothing written")
    parser.add_argument("--paper", action="store_true", help="print the table of large models")
    parser.add_argument("--one", help="one setting in this process, as JSON")
    arguments = parser.parse_args()
    use_device("cpu")
    sys.path.insert(0, str(Path(__file__).parents[1]))
    if arguments.paper:
        print(paper())
        return
    if arguments.one:
        with tempfile.TemporaryDirectory() as work:
            print(json.dumps({"measured_MiB": measure(*json.loads(arguments.one), Path(work))}))
        return
    rows = []
    for setting in QUICK if arguments.quick else SETTINGS:
        row = {**_measured(setting, keep=not arguments.quick), **estimated(*setting)}
        row["off"] = round(row["estimated_MiB"] / row["measured_MiB"] - 1, 4)
        print(json.dumps(row), file=sys.stderr)
        rows.append(row)
    within = sum(abs(row["off"]) <= BOUND for row in rows)
    worst = max((abs(row["off"]) for row in rows), default=0.0)
    result = {"bound": BOUND, "within_bound": within, "settings": len(rows), "largest_error": worst, "rows": rows}
    finish("bench_estimate", result, quick=arguments.quick)


def _measured(setting: tuple[str, int, int, int], *, keep: bool) -> dict[str, Any]:
    """What was measured of a setting, now or before."""
    named = dict(zip(("model", "lora", "rows", "length"), setting, strict=True))
    lines = MEASURED.read_text(encoding="utf-8").splitlines() if keep and MEASURED.is_file() else []
    for row in map(json.loads, lines):
        if named.items() <= row.items():
            return row
    command = [sys.executable, __file__, "--one", json.dumps(setting)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    row = {**named, **json.loads(done.stdout.splitlines()[-1])}
    if keep:
        with MEASURED.open("a", encoding="utf-8") as rows:
            rows.write(json.dumps(row) + "\n")
    return row


if __name__ == "__main__":
    main()
