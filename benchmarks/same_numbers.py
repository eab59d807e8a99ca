"""Does this code give the numbers of another commit? Tiny fp32 runs of both, on one machine, compared exactly.

    git worktree add ../before 9d40e77
    python benchmarks/same_numbers.py ../before

Compared: every shard of the pools, `L_ft`, `L_f`, `KL` and `lambda` of every reading, and the saved weights, bit by
bit. Writes benchmarks/results/same_numbers.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shared import finish

ROOT = Path(__file__).parents[1]
BASE = ["--max-length", "32", "--replay-length", "16", "--replay-tokens", "640", "--steps", "12", "--batch-size", "2"]
BASE += ["--accumulate", "2", "--held-out-rows", "4", "--checkpoint-every", "4", "--seed", "3"]
RUNS = {
    "full": [],
    "lora": ["--lora", "4"],
    "plain": ["--lambda", "0"],
    "budget": ["--budget", "0.01"],
    "ntp": ["--objective", "ntp"],
    "reverse_kl": ["--objective", "reverse_kl"],
    "jensen_shannon": ["--objective", "jensen_shannon"],
    "topk": ["--teacher", "topk", "--top-k", "8"],
    "live": ["--teacher", "live"],
    "adapter": ["--lora", "4", "--teacher", "adapter"],
    "resume": [],
}
READ = ("step", "L_ft", "L_f", "L_f_base", "KL", "lambda", "task_tokens", "replay_tokens", "P")
RENAMED = {"--drift-rows": "--meter-rows", "--drift-every": "--meter-every"}
"""Flags of today, and their names in the commits before 2026-11-28."""


def main() -> None:
    """Run both and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="a checkout of the other commit")
    parser.add_argument("--only", nargs="*", choices=RUNS, default=list(RUNS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        compared = {run: compare(run, arguments.before, folder) for run in arguments.only}
    equal = all(all(parts.values()) for parts in compared.values())
    before = subprocess.run(
        ["git", "-C", str(arguments.before), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    found = {"before": before.stdout.strip(), "equal": equal, "runs": compared}
    finish("same_numbers", found, quick=len(compared) < len(RUNS))
    sys.exit(0 if equal else 1)


def write_inputs(folder: Path) -> None:
    """A tiny base, texts, and a run file that keeps all arithmetic in fp32."""
    sys.path.insert(0, str(ROOT))
    from tests.helpers.models import make_model, make_tokenizer

    make_model().save_pretrained(folder / "base")
    make_tokenizer().save_pretrained(folder / "base")
    (folder / "texts").mkdir()
    for number in range(8):
        (folder / "texts" / f"{number}.txt").write_text(f"Document {number} speaks of the number {number}. " * 12)
    (folder / "run.toml").write_text("[sft]\nbf16 = false\n")


def compare(run: str, before: Path, folder: Path) -> dict[str, bool]:
    """Which parts of a run are equal, run by the other commit and by this one."""
    old, new = (result(run, source, folder / f"{run}-{name}") for name, source in (("old", before), ("new", ROOT)))
    parts = {part: old[part] == new[part] for part in old}
    print(run, parts, file=sys.stderr, flush=True)
    return parts


def result(run: str, source: Path, out: Path) -> dict[str, Any]:
    """Digests of the pool and the weights of a run, and its readings."""
    inputs = out.parent
    old = not (source / "src" / "keeptune" / "runs").is_dir()
    flags = [*BASE, "--drift-rows", "4", "--drift-every", "3", *RUNS[run]]
    flags = [RENAMED.get(flag, flag) if old else flag for flag in flags]
    command = ["tune", inputs / "base", inputs / "texts", "--config", inputs / "run.toml", "--out", out, *flags]
    environment = {**os.environ, "PYTHONPATH": str(source / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "keeptune", *map(str, command)]
    if run == "resume":
        stop_after_checkpoint(command, environment, out)
        command.append("--resume")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{run} of {source} failed:\n{done.stderr}")
    return {
        "readings": [[row[key] for key in READ] for row in readings(out / "runs.jsonl")],
        "pool": [sha256(shard) for shard in sorted(out.glob("replay*/*.safetensors"))],
        "weights": [sha256(file) for file in sorted((out / "model").glob("*.safetensors"))],
    }


def stop_after_checkpoint(command: list[str], environment: dict[str, str], out: Path) -> None:
    """Interrupt the run once its first checkpoint is complete."""
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while not (out / "checkpoint-4" / "complete").is_file():
        if process.poll() is not None:
            raise SystemExit(f"{command} ended before its first checkpoint")
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    if process.wait() != 130:
        raise SystemExit(f"{command} was not interrupted in time: it ended with {process.returncode}")


def readings(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a runs.jsonl."""
    for line in file.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def sha256(file: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
