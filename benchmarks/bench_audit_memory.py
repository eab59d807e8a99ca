"""Peak memory of an audit on SmolLM2: two models, four times the text, and an adapter on its own base.

    python benchmarks/bench_audit_memory.py --quick     # the adapter alone, few texts, writes nothing
    python benchmarks/bench_audit_memory.py             # three audits of a few minutes, each in a process of its own
    python benchmarks/bench_audit_memory.py --case text # one of them; the others' rows stay in the result

The layer comparison is left out: it holds 80 MB of states on SmolLM2, less than reading a text takes.
Memory is the peak of what the process holds (VmHWM), the interpreter and the libraries included. Bounds, set before the
run: two models take at most their weights + 700 MB; with four times the text no more than 50 MB above that; an adapter
on its own base takes one model's weights, its own, and at most 700 MB.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from shared import RESULTS, finish

from keeptune.system import commit

MB, ALLOWED, FLAT = 1e6, 700, 50
TEXTS = ["--text", "pydoc", "--docs", "16", "--max-length", "128"]
PROMPTS = ["--harmless", "harmless", "--prompts", "12", "--new-tokens", "8"]


def status(field: str) -> int:
    """Bytes that the process holds (VmRSS), or held at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


class Stages(logging.Handler):
    """The most that was held between one message of the log and the next, by the message that ends the stage."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peaks = 0, dict[str, float]()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.now = max(self.now, status("VmRSS"))
            time.sleep(0.05)

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage().splitlines()[0].split(":")[0][:60]
        self.peaks[words] = max(self.peaks.get(words, 0.0), round(self.now / MB))
        self.now = 0


def child(arguments: list[str]) -> None:
    """One audit in this process; prints its memory as JSON."""
    from keeptune.cli import _prepare_process, app
    from keeptune.log import logger

    _prepare_process()
    stages = Stages()
    logger.addHandler(stages)
    import keeptune.audit.run  # noqa: F401 — what an audit imports, before it holds anything

    imported = status("VmRSS")
    app(arguments, result_action="return_value", exit_on_error=False)
    print(
        json.dumps({"imports_MB": round(imported / MB), "peak_MB": round(status("VmHWM") / MB), "stages": stages.peaks})
    )


def measured(tuned: Path, out: Path, flags: list[str]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", "audit", "smollm2", str(tuned), "--out", str(out), *flags]
    start = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "minutes": round((time.monotonic() - start) / 60, 1)}


def models(folder: Path) -> tuple[int, int]:
    """Write a tuned model and an adapter; returns the bytes of a model's weights and of the adapter's."""
    import torch
    from peft import LoraConfig, get_peft_model

    from keeptune.models.disk.saving import save_model
    from keeptune.models.loading import load_model, load_tokenizer

    torch.manual_seed(0)
    base, tokenizer = load_model("smollm2"), load_tokenizer("smollm2")
    weights = sum(parameter.numel() * parameter.element_size() for parameter in base.parameters())
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            if "down_proj" in name:
                parameter.add_(0.02 * parameter.std() * torch.randn_like(parameter))
    save_model(base, tokenizer, folder / "tuned")
    adapted: Any = get_peft_model(load_model("smollm2"), LoraConfig(r=16, lora_alpha=16, target_modules="all-linear"))
    added = [parameter for name, parameter in adapted.named_parameters() if "lora_" in name]
    with torch.no_grad():
        for parameter in added:
            parameter.normal_(0, 0.01)
    adapted.save_pretrained(folder / "adapter")
    return weights, sum(parameter.numel() * parameter.element_size() for parameter in added)


def main() -> None:
    if "--child" in sys.argv:
        child(sys.argv[sys.argv.index("--child") + 1 :])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--case", choices=("adapter", "two", "text"), action="append")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        weights, added = (round(size / MB) for size in models(folder))
        cases = {
            "adapter": ("adapter", [*TEXTS, "--windows", "1", *PROMPTS, "--skip", "where"], weights + added),
            "two": ("tuned", [*TEXTS, "--windows", "1", *PROMPTS, "--skip", "where"], 2 * weights),
            "text": ("tuned", [*TEXTS, "--windows", "4", "--only", "drift"], 2 * weights),
        }
        if given.quick:
            flags = ["--docs", "4", "--max-length", "64", "--only", "drift"]
            cases = {"adapter": ("adapter", flags, weights + added)}
        kept = RESULTS / "bench_audit_memory.json"
        rows: dict[str, Any] = {}
        if given.case and kept.is_file():
            rows = json.loads(kept.read_text())["cases"]
        for name in given.case or cases:
            tuned, flags, held = cases[name]
            out, first = folder / f"out-{name}", next(folder.glob("out-*/samples"), None)
            if first is not None:  # all read the same text of the base
                shutil.copytree(first, out / "samples")
            row = measured(folder / tuned, out, flags)
            rows[name] = {
                "flags": " ".join(flags),
                "commit": commit(),
                "weights_MB": held,
                "extra_MB": row["peak_MB"] - held,
                **row,
            }
            print(name, json.dumps(rows[name]), file=sys.stderr, flush=True)
    extra = {name: row["extra_MB"] for name, row in rows.items()}
    held = max(extra.values()) <= ALLOWED and extra.get("text", 0) - extra.get("two", 0) <= FLAT
    finish("bench_audit_memory", {"allowed_MB": ALLOWED, "cases": rows, "bounds_held": held}, quick=given.quick)


if __name__ == "__main__":
    main()
