"""Real processes, real signals: what a stopped run leaves is whole, and going on gives what one run would have."""

from __future__ import annotations

import random
import re
import secrets
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from keeptune.replay.pool import ReplayPool
from tests.helpers.processes import (
    FSDP2,
    PLAIN,
    STEPS,
    TORCHRUN,
    TUNE,
    Task,
    assert_equal,
    finish,
    goes_on,
    killed_at,
    make_task,
    start,
    wait_for,
    weights,
    write_texts,
)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    write_texts(folder)
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return make_task(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def whole(task: Task, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of a run in one process that nothing stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    code, error = finish(start("tune", *task, "--out", out, *TUNE, "--batch-size", "2"))
    assert code == 0, error
    return weights(out)


def test_an_interrupted_run_goes_on_to_the_same_model(
    task: Task, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    run = tmp_path / "parts"
    command = [*task, *TUNE, "--batch-size", "2"]
    process = start("tune", *command, "--out", run)
    wait_for(run / "checkpoint-10" / "complete", process)
    process.send_signal(signal.SIGINT)
    code, error = finish(process)
    assert not (run / "model").exists()
    assert code == 130, error
    assert re.search(r"stopped after step \d+ of 40, checkpoint kept", error)
    assert "--resume" in error
    goes_on(command, run, PLAIN)
    assert_equal(whole, weights(run), tolerance=0.0)


@pytest.mark.parametrize(
    ("launcher", "rows", "tolerance"),
    [(PLAIN, "2", 0.0), (TORCHRUN, "1", 1e-6), (FSDP2, "1", 1e-6)],
    ids=["one process", "two processes", "FSDP2"],
)
def test_a_run_killed_at_a_random_step_goes_on_to_the_same_model(
    task: Task,
    whole: dict[str, torch.Tensor],
    tmp_path: Path,
    launcher: list[str],
    rows: str,
    tolerance: float,
) -> None:
    seed = secrets.randbits(32)
    step = random.Random(seed).randint(1, STEPS - 5)
    print(f"killed after step {step} (seed {seed})")
    run = tmp_path / "parts"
    command = [*task, *TUNE, "--batch-size", rows]
    killed_at(step, run, start("tune", *command, "--out", run, launcher=launcher))
    goes_on(command, run, launcher)
    assert_equal(whole, weights(run), tolerance)


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
