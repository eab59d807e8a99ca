"""Real processes, real signals: what a stopped run leaves is whole, and going on gives what one run would have."""

from __future__ import annotations

import os
import random
import re
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from keeptune.replay.pool import ReplayPool
from keeptune.train.runs import read_rows
from tests.conftest import make_model, make_tokenizer

STEPS = 40
TUNE = ["--max-length", "32", "--replay-length", "16", "--replay-tokens", "640", "--meter-rows", "4"]
TUNE += ["--held-out-rows", "4", "--meter-every", "1", "--checkpoint-every", "5", "--steps", str(STEPS)]
INVARIANTS = Path(__file__).parents[1] / "invariants"
Task = tuple[Path | str, ...]
PLAIN = ["-m", "keeptune"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *PLAIN]
FSDP2 = ["-m", "accelerate.commands.launch", "--config_file", str(INVARIANTS.parents[1] / "recipes" / "fsdp2.yaml")]
FSDP2 += ["--main_process_port", "0", "--mixed_precision", "no", str(INVARIANTS / "fsdp_on_cpu.py")]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    write_texts(folder)
    return folder


def write_texts(folder: Path) -> None:
    for number in range(8):
        (folder / f"{number}.txt").write_text(f"Document {number} speaks of the number {number}. " * 12)


def start(*arguments: str | Path, launcher: list[str] = PLAIN) -> subprocess.Popen[str]:
    command = [sys.executable, *launcher, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, error = process.communicate(timeout=300)
    return process.returncode, error


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
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


def killed_at(step: int, run: Path, process: subprocess.Popen[str]) -> None:
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


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Arguments of a run: base, data, and a run file that keeps all arithmetic in fp32."""
    folder = tmp_path_factory.mktemp("kill")
    make_model().save_pretrained(folder / "base")
    make_tokenizer().save_pretrained(folder / "base")
    (folder / "texts").mkdir()
    write_texts(folder / "texts")
    (folder / "run.toml").write_text("[sft]\nbf16 = false\n")
    return folder / "base", folder / "texts", "--config", folder / "run.toml"


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
