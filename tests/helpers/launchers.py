"""A run of the command line under each launcher."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_file
from torch import Tensor

from tests.helpers.forked import Forked

SETTINGS = ["--max-length", "32", "--replay-length", "16", "--replay-tokens", "640", "--drift-rows", "4", "--seed", "3"]
SETTINGS += ["--held-out-rows", "5", "--drift-every", "3", "--steps", "6", "--checkpoint-every", "4"]
RECIPE = Path(__file__).parents[2] / "recipes" / "fsdp2.yaml"

PYTHON = [sys.executable]
TORCHRUN = [*PYTHON, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = [*PYTHON, "-m", "accelerate.commands.launch", "--config_file", str(RECIPE), "--main_process_port", "0"]
ACCELERATE += ["--mixed_precision", "no"]
KEEPTUNE = ["-m", "keeptune"]
FSDP_ON_CPU = [str(Path(__file__).parents[1] / "helpers" / "fsdp_on_cpu.py")]


class Run(NamedTuple):
    """How a run is started, its cut of four task rows a step, and its table [sft]."""

    launcher: list[str]
    cut: tuple[int, int]
    """Rows of a micro-batch on each process, micro-batches to a step."""
    sft: str = ""


class Finished(NamedTuple):
    folder: Path
    message: str

    @property
    def weights(self) -> dict[str, Tensor]:
        (file,) = (self.folder / "model").glob("*.safetensors")
        return load_file(file)


def execute(run: Run, out: Path, adapter: list[str], base: Path, texts: Path) -> Finished:
    file = out.with_suffix(".toml")
    file.write_text(f"[sft]\nbf16 = false\n{run.sft}")
    rows, micros = (str(number) for number in run.cut)
    command = [*run.launcher, "tune", base, texts / "*.txt", *SETTINGS, *adapter, "--config", file, "--out", out]
    command += ["--batch-size", rows, "--accumulate", micros]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    words = [str(part) for part in command]
    if run.launcher[: len(PYTHON) + len(KEEPTUNE)] == [*PYTHON, *KEEPTUNE]:
        process = Forked(words[len(PYTHON) :], environment)
        _, error = process.communicate(timeout=600)
        code = process.returncode
    else:
        done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=600)
        code, error = done.returncode, done.stderr
    assert code == 0, error[-3000:]
    return Finished(out, error)
