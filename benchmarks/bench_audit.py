"""The audit of the demo's two models: minutes, peak memory, and what it found.

    python benchmarks/bench_audit.py --wikitext FILE --arc FILE --advbench FILE     # after `make demo`
    python benchmarks/bench_audit.py --quick                                        # one model, the base's own text

Runs `keeptune audit smollm2 MODEL` at its default sizes on WikiText-2's test part, Verilog, pydoc, ARC-Challenge,
AdvBench goals and the built-in harmless prompts, each model in a process of its own. Memory is the process's peak
resident size; it is read again with a quarter of the documents, to see that it does not grow with them. The reports go
to results/ without what models wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from shared import RESULTS, finish, use_device

ROOT = Path(__file__).resolve().parent.parent
MODELS = {"plain": "demo/plain/model", "replay": "demo/replay/model"}
WRITTEN = ("answers", "passages", "continuations")
MIB = 2**20


def audited(model: str, out: Path, flags: list[str]) -> tuple[float, float]:
    """Minutes, and peak resident MiB."""
    command = [sys.executable, "-m", "keeptune", "audit", "smollm2", model, "--out", str(out), *flags]
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the audit of {model} failed")
    return (time.monotonic() - start) / 60, usage.ru_maxrss / 1024


def without_texts(value: Any) -> Any:
    """The report without what models wrote."""
    if isinstance(value, dict):
        return {key: without_texts(entry) for key, entry in value.items() if key not in WRITTEN}
    return [without_texts(entry) for entry in value] if isinstance(value, list) else value


def weights_mib(model: str) -> float:
    """Of the weights in fp32, as the audit loads them."""
    from safetensors import safe_open

    with safe_open(ROOT / model / "model.safetensors", framework="pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 — no dictionary
    sizes = []
    for shape in shapes:
        size = 4
        for length in shape:
            size *= length
        sizes.append(size)
    return sum(sizes) / MIB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wikitext", help="WikiText-2's test part as published")
    parser.add_argument("--arc", help="ARC-Challenge's test part, jsonl")
    parser.add_argument("--advbench", help="AdvBench's harmful behaviours, csv")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", choices=["cpu", "cuda"])
    given = parser.parse_args()
    use_device(given.device)
    flags = ["--docs", "8"] if given.quick else ["--text", "verilog", "--text", "pydoc"]
    if given.wikitext:
        flags += ["--text", f"wikitext2=wikitext:{given.wikitext}"]
    if given.arc:
        flags += ["--task", f"arc={given.arc}"]
    if given.advbench:
        flags += ["--harmful", f"advbench={given.advbench}"]
    models = {"plain": MODELS["plain"]} if given.quick else MODELS
    result: dict[str, Any] = {"flags": [Path(flag).name if "/" in flag else flag for flag in flags], "rounds": 1}
    weights = weights_mib(MODELS["plain"])
    with tempfile.TemporaryDirectory() as folder:
        for name, model in models.items():
            out = Path(folder) / name
            minutes, peak = audited(model, out, flags)
            extra = peak - 2 * weights
            result |= {f"minutes_{name}": round(minutes, 2), f"extra_MiB_{name}": round(extra)}
            result |= {f"minutes_again_{name}": round(audited(model, out, flags)[0], 2)}
            if not given.quick:
                report = without_texts(json.loads((out / "report.json").read_text()))
                text = json.dumps(report, indent=1, ensure_ascii=False)
                files = [file for file in (given.wikitext, given.arc, given.advbench) if file]
                for local in [folder, str(ROOT), *(str(Path(file).parent) for file in files)]:
                    text = text.replace(f"{local}/", "")
                RESULTS.mkdir(exist_ok=True)
                (RESULTS / f"audit_{name}.json").write_text(text + "\n")
                shutil.copytree(out, ROOT / "demo" / f"audit-{name}", dirs_exist_ok=True)
        quarter = [*flags, "--docs", "2" if given.quick else "16"]
        small = audited(MODELS["plain"], Path(folder) / "quarter", quarter)[1] - 2 * weights
    result |= {"weights_MiB": round(weights), "extra_MiB_quarter_of_the_documents": round(small)}
    finish("bench_audit", result, quick=given.quick)


if __name__ == "__main__":
    main()
