"""Real processes of the command line, alone and under launchers: started, stopped by real signals, killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file

from keeptune.train.readings import read_rows
from tests.helpers.forked import Forked
from tests.helpers.models import make_model, make_tokenizer

STEPS = 40
TUNE = ["--max-length", "32", "--replay-length", "16", "--replay-tokens", "640", "--drift-rows", "4"]
TUNE += ["--held-out-rows", "4", "--drift-every", "1", "--checkpoint-every", "5", "--steps", str(STEPS)]
ROOT = Path(__file__).parents[2]
Task = tuple[Path | str, ...]
Process = subprocess.Popen[str] | Forked
PLAIN = ["-m", "keeptune"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *PLAIN]
FSDP2 = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / "recipes" / "fsdp2.yaml")]
FSDP2 += ["--main_process_port", "0", "--mixed_precision", "no", str(ROOT / "tests" / "helpers" / "fsdp_on_cpu.py")]


def write_texts(folder: Path) -> None:
    for number in range(8):
        (folder / f"{number}.txt").write_text(f"Document {number} speaks of the number {number}. " * 12)


def start(*arguments: str | Path, launcher: list[str] = PLAIN) -> Process:
    command = [*launcher, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    if launcher == PLAIN:
        return Forked(command, environment)
    return subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True, env=environment)


def finish(process: Process) -> tuple[int | None, str]:
    _, error = process.communicate(timeout=300)
    return process.returncode, error


def wait_for(path: Path, process: Process) -> None:
    deadline = time.monotonic() + 300
    while not list(path.parent.glob(path.name)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def assert_equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], tolerance: float) -> None:
    # Gathered from shards, a tied head is written out beside the embedding.
    assert right.keys() - left.keys() <= {"lm_head.weight"}
    assert max(float((left[name] - right[name]).abs().max()) for name in left) <= tolerance


def killed_at(step: int, run: Path, process: Process) -> None:
    """SIGKILL to the launcher and to every worker, in the middle of whatever comes after the reading of `step`."""
    deadline = time.monotonic() + 300
    while not any(row["step"] >= step for row in read_rows(run / "runs.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"step {step} did not come"
        time.sleep(0.002)
    launcher = psutil.Process(process.pid)
    for victim in (launcher, *launcher.children(recursive=True)):
        victim.kill()
    assert finish(process)[0] == -signal.SIGKILL
    assert not (run / "model").exists()


def goes_on(command: list[str | Path], run: Path, launcher: list[str]) -> None:
    code, error = finish(start("tune", *command, "--out", run, "--resume", launcher=launcher))
    assert code == 0, error
    assert re.search("continuing from|no checkpoint yet", error)
    steps = [row["step"] for row in read_rows(run / "runs.jsonl")]
    assert steps == list(range(STEPS + 1))


def make_task(folder: Path) -> Task:
    """Arguments of a run: base, data, and a run file that keeps all arithmetic in fp32."""
    make_model().save_pretrained(folder / "base")
    make_tokenizer().save_pretrained(folder / "base")
    (folder / "texts").mkdir()
    write_texts(folder / "texts")
    (folder / "run.toml").write_text("[sft]\nbf16 = false\n")
    return folder / "base", folder / "texts", "--config", folder / "run.toml"
