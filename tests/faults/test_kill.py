"""Real processes, real signals: what a stopped run leaves is whole, and going on gives what one run would have."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from keeptune.replay.pool import ReplayPool
from keeptune.train.runs import read_rows

STEPS = 40
TUNE = [
    "--batch-size",
    "2",
    "--max-length",
    "32",
    "--replay-length",
    "16",
    "--replay-tokens",
    "640",
    "--meter-rows",
    "4",
]
TUNE += ["--held-out-rows", "4", "--meter-every", "10", "--checkpoint-every", "5", "--steps", str(STEPS)]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.txt").write_text(f"Document {number} speaks of the number {number}. " * 12)
    return folder


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "keeptune", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, error = process.communicate(timeout=120)
    return process.returncode, error


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while not list(path.parent.glob(path.name)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_goes_on_to_the_same_model(
    model_folder: Path, texts: Path, tmp_path: Path, number: signal.Signals
) -> None:
    whole = start("tune", model_folder, texts, "--out", tmp_path / "whole", *TUNE)
    code, error = finish(whole)
    assert code == 0, error
    run = tmp_path / "parts"
    process = start("tune", model_folder, texts, "--out", run, *TUNE)
    wait_for(run / "checkpoint-10" / "complete", process)
    process.send_signal(number)
    code, error = finish(process)
    assert not (run / "model").exists()
    if number == signal.SIGINT:
        assert code == 130, error
        assert re.search(r"stopped after step \d+ of 40, checkpoint kept", error)
        assert "--resume" in error
    else:
        assert code == -signal.SIGKILL
    code, error = finish(start("tune", model_folder, texts, "--out", run, "--resume", *TUNE))
    assert code == 0, error
    assert "continuing from" in error
    left, right = weights(tmp_path / "whole"), weights(run)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    steps = [row["step"] for row in read_rows(run / "runs.jsonl")]
    assert set(range(0, STEPS + 1, 10)) <= set(steps)
    assert steps == sorted(set(steps))


def test_a_killed_sampler_goes_on_without_repeating_or_losing_a_sample(model_folder: Path, tmp_path: Path) -> None:
    sample = ["--tokens", str(128 * 4 * 24), "--length", "24"]
    assert finish(start("replay", model_folder, "--out", tmp_path / "whole", *sample))[0] == 0
    process = start("replay", model_folder, "--out", tmp_path / "parts", *sample)
    wait_for(tmp_path / "parts" / "shard-00001.safetensors", process)
    process.kill()
    process.communicate()
    code, error = finish(start("replay", model_folder, "--out", tmp_path / "parts", *sample))
    assert code == 0, error
    whole, parts = ReplayPool.open(tmp_path / "whole"), ReplayPool.open(tmp_path / "parts")
    assert whole.shards == parts.shards


def test_ctrl_c_while_sampling_says_how_to_go_on(model_folder: Path, tmp_path: Path) -> None:
    process = start("replay", model_folder, "--out", tmp_path / "pool", "--tokens", "2000000", "--length", "64")
    wait_for(tmp_path / "pool" / "shard-00000.safetensors", process)
    process.send_signal(signal.SIGINT)
    code, error = finish(process)
    assert code == 130
    assert "Traceback" not in error
    assert "goes on from there" in error


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system with one MiB on it."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_an_error_and_no_corrupt_file(model_folder: Path, small_disk: Path) -> None:
    code, error = finish(start("replay", model_folder, "--out", small_disk / "pool", "--tokens", "400000"))
    assert code == 2, error
    assert "the disk is full" in error
    assert "free some space" in error
    assert "Traceback" not in error
    assert not list((small_disk / "pool").glob("*.tmp"))
    code, error = finish(start("replay", model_folder, "--out", small_disk / "pool", "--tokens", "400000"))
    assert code == 2
    assert "the disk is full" in error


def test_a_full_disk_while_tuning(model_folder: Path, texts: Path, small_disk: Path) -> None:
    code, error = finish(start("tune", model_folder, texts, "--out", small_disk / "run", *TUNE))
    assert code == 2, error
    assert "disk is full" in error
    assert "Traceback" not in error
