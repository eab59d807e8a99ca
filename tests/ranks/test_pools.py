"""Pools written by several processes: the bytes of one, whatever their number, and the failure of one told to all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from keeptune.models.loading import load_model
from keeptune.models.modeling import hidden_states
from keeptune.replay.manifest import read_manifest
from keeptune.replay.pool import ReplayPool
from keeptune.storage import sha256_file
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.ranks import KEEPTUNE, end, launch, long, succeed

SIZES = ["--tokens", "320", "--length", "16", "--seed", "3"]
SHARDS = [*SIZES, "--rows-per-shard", "4"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_model(tie=False).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def alone(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pool of one process."""
    folder = tmp_path_factory.mktemp("pools") / "alone"
    succeed(1, *KEEPTUNE, "replay", base, "--out", folder, *SHARDS)
    return folder


def bytes_of(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=long)])
def test_the_bytes_do_not_depend_on_the_number_of_processes(
    base: Path, alone: Path, tmp_path: Path, world: int
) -> None:
    told = succeed(world, *KEEPTUNE, "replay", base, "--out", tmp_path / "pool", *SHARDS)
    assert bytes_of(tmp_path / "pool") == bytes_of(alone)
    assert len(bytes_of(alone)) == 1 + 5
    assert "20 rows of 16 tokens" in told[0]
    assert not any("keeptune" in line or "rows" in line for text in told[1:] for line in text.splitlines()), told[1:]


def test_another_number_of_processes_goes_on_and_keeps_what_was_written(
    base: Path, alone: Path, tmp_path: Path
) -> None:
    """The second process was killed before it wrote a shard, and the first before it wrote the manifest again."""
    pool = tmp_path / "pool"
    shutil.copytree(alone, pool)
    manifest = json.loads((pool / "manifest.json").read_text())
    del manifest["checksum"]  # as a version before checksums wrote it
    manifest["shards"] = manifest["shards"][:1]
    (pool / "manifest.json").write_text(json.dumps(manifest))
    (pool / "shard-00001.safetensors").unlink()
    (pool / "shard-00003.safetensors").write_bytes(b"cut short")
    for name in ("shard-00004.safetensors", "manifest.json"):
        (pool / f".{name}.x.tmp").write_bytes(b"left over")
    before = {path.name: path.stat().st_mtime_ns for path in pool.glob("shard-*")}
    succeed(2, *KEEPTUNE, "replay", base, "--out", pool, *SHARDS)
    assert bytes_of(pool) == bytes_of(alone)
    after = {path.name: path.stat().st_mtime_ns for path in pool.glob("shard-*")}
    assert {name for name, when in before.items() if after[name] == when} == {
        "shard-00000.safetensors",
        "shard-00002.safetensors",
        "shard-00004.safetensors",
    }


@long
def test_real_text_is_shared_out_too(base: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(f"The number {n} follows {n - 1}." for n in range(400)))
    command = (*KEEPTUNE, "replay", base, "--text", tmp_path / "text.txt", "--length", "16", "--tokens", "3200")
    for world in (1, 2):
        succeed(world, *command, "--out", tmp_path / str(world))
    assert len(ReplayPool.open(tmp_path / "2").shards) == 4
    assert bytes_of(tmp_path / "1") == bytes_of(tmp_path / "2")


SCRIPT = """
import os, sys, time
from pathlib import Path
import torch
from keeptune.cli import main
from keeptune.replay.engines.torch import TorchEngine
whole, calls = TorchEngine.sample, []
def sample(self, *given):
    calls.append(1)
    if os.environ["RANK"] == os.environ["BAD_RANK"] and len(calls) == int(os.environ["BAD_CALL"]):
        {what}
    time.sleep(float(os.environ["WAIT"]))
    return whole(self, *given)
TorchEngine.sample = sample
main()
"""


@pytest.mark.parametrize(
    ("world", "what", "bad", "call", "code", "reason"),
    [
        (2, "from keeptune.errors import PoolError; raise PoolError('the engine broke', 'mend it')", 0, 2, 2, "broke"),
        pytest.param(4, "raise OSError(28, 'No space left on device', 'x')", 2, 1, 2, "No space", marks=long),
        pytest.param(2, "raise ZeroDivisionError('by chance')", 1, 2, 70, "ZeroDivisionError: by chance", marks=long),
    ],
)
def test_the_failure_of_one_is_told_to_all(
    base: Path, alone: Path, tmp_path: Path, world: int, what: str, bad: int, call: int, code: int, reason: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(what=what))
    command = (script, "replay", base, "--out", tmp_path / "pool", *SHARDS)
    ended = end(launch(world, *command, BAD_RANK=str(bad), BAD_CALL=str(call), WAIT="0.1"))
    for rank, (ended_with, text) in enumerate(ended):
        assert ended_with == (code if rank == bad else 2), text[-2000:]
        assert reason in text or (rank == bad and "disk is full" in text)
        assert rank == bad or f"process {bad} of {world} failed" in text
    written = read_manifest(tmp_path / "pool")
    assert written is not None and written.rows_written == 4 * world * (call - 1)
    succeed(1, *KEEPTUNE, "replay", base, "--out", tmp_path / "pool", *SHARDS)
    assert bytes_of(tmp_path / "pool") == bytes_of(alone)


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=long)])
def test_a_killed_process_ends_the_others_and_loses_the_shard_in_hand(
    base: Path, alone: Path, tmp_path: Path, victim: int
) -> None:
    script, pool = tmp_path / "script.py", tmp_path / "pool"
    script.write_text(SCRIPT.format(what="time.sleep(1000)"))
    processes = launch(2, script, "replay", base, "--out", pool, *SHARDS, BAD_RANK=str(victim), BAD_CALL="2", WAIT="0")
    deadline = time.monotonic() + 240
    while len(list(pool.glob("shard-*"))) < 3:  # two of the first round, one of the second
        assert time.monotonic() < deadline and processes[1 - victim].poll() is None
        time.sleep(0.02)
    os.kill(processes[victim].pid, signal.SIGKILL)
    ended = end(processes)
    assert ended[victim][0] == -signal.SIGKILL
    assert ended[1 - victim][0] == 2
    assert "another of the processes has ended" in ended[1 - victim][1]
    kept = {path.name: path.stat().st_mtime_ns for path in pool.glob("shard-*")}
    succeed(4, *KEEPTUNE, "replay", base, "--out", pool, *SHARDS)
    assert bytes_of(pool) == bytes_of(alone)
    assert {name: (pool / name).stat().st_mtime_ns for name in kept} == kept


def test_a_base_in_shards_writes_and_predicts(base: Path, tmp_path: Path) -> None:
    """Of five shards the last ones are computed by all processes together."""
    for world in (2, 4):
        succeed(world, *KEEPTUNE, "replay", base, "--out", tmp_path / str(world), *SHARDS, "--shard")
    assert bytes_of(tmp_path / "2") == bytes_of(tmp_path / "4")
    pool, model = ReplayPool.open(tmp_path / "2"), load_model(str(base))
    batch = pool.batch(torch.arange(pool.rows))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, pool.settings.hidden_dtype == "bfloat16"):
        expected = batch.at_targets(hidden_states(model, batch.inputs_BP)).unflatten(0, (-1, 16))
    torch.testing.assert_close(batch.hidden_BTD.float(), expected.float(), rtol=0, atol=0.1)


def test_sharding_that_cannot_be_is_refused(base: Path, tmp_path: Path) -> None:
    for flags, reason in [
        (["--shard"], "is to be spread over processes, and there is one"),
        (["--shard", "--load-in-4bit"], "bitsandbytes quantizes whole layers"),
        (["--shard", "--engine", "vllm"], "vLLM reads the checkpoint itself"),
        (["--rows-per-shard", "0"], "--rows-per-shard is 0"),
    ]:
        ((code, text),) = end(launch(1, *KEEPTUNE, "replay", base, "--out", tmp_path / "pool", *flags))
        assert code == 2 and reason in " ".join(text.split()), text
