"""Two processes give the model that one gives, through the command line and torchrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from keeptune.train.runs import read_rows

SMALL = ["--max-length", "32", "--replay-length", "16", "--replay-tokens", "640", "--meter-rows", "4", "--steps", "6"]
SMALL += ["--held-out-rows", "5", "--meter-every", "3", "--checkpoint-every", "0", "--seed", "3"]


def tune(processes: int, *arguments: str | Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", "29713"]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "keeptune", "tune", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("adapter", [[], ["--lora", "4"]])
def test_two_processes_equal_one(model_folder: Path, tmp_path: Path, adapter: list[str]) -> None:
    for number in range(8):
        (tmp_path / f"{number}.txt").write_text(f"Document {number} speaks of the number {number}. " * 12)
    file = tmp_path / "run.toml"
    file.write_text("[sft]\nbf16 = false\n")
    data = tmp_path / "*.txt"
    shared = [model_folder, data, *SMALL, *adapter, "--config", file]
    tune(1, *shared, "--out", tmp_path / "one", "--batch-size", "4", "--replay-rows", "2")
    tune(2, *shared, "--out", tmp_path / "two", "--batch-size", "2", "--replay-rows", "1")
    name = "adapter_model.safetensors" if adapter else "model.safetensors"
    one, two = (load_file(tmp_path / run / "model" / name) for run in ("one", "two"))
    assert one.keys() == two.keys()
    assert max(float((one[key] - two[key]).abs().max()) for key in one) <= 1e-6
    rows = {run: read_rows(tmp_path / run / "runs.jsonl") for run in ("one", "two")}
    assert [row["step"] for row in rows["two"]] == [0, 3, 6]
    for left, right in zip(rows["one"], rows["two"], strict=True):
        assert left["task_tokens"] == right["task_tokens"]
        for key in ("L_ft", "KL", "L_f"):
            assert left[key] == pytest.approx(right[key], abs=1e-5)
    assert not torch.equal(one[next(iter(one))], torch.zeros_like(one[next(iter(one))]))
