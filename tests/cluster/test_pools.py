"""Pools that workers of a real Ray write: the bytes of one process, what is there is kept, failures come in words."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keeptune.cluster import anywhere, start_ray
from keeptune.errors import OutputExists, WorkerLost
from tests.cluster import kills
from tests.cluster.kills import LENGTH, ROWS, TOKENS, bytes_of, written
from tests.helpers.cli import run

pytestmark = pytest.mark.skipif("KEEPTUNE_RAY" not in os.environ, reason="needs Ray, and is long: make ray-tests")


def sizes(*, seed: int = 3) -> list[Any]:
    return ["--tokens", TOKENS, "--length", LENGTH, "--seed", seed, "--rows-per-shard", ROWS]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray = start_ray()
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kills.make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def alone(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pools") / "alone"
    kills.alone(base, folder)
    return folder


def test_an_unfinished_pool_goes_on_and_what_is_there_is_kept(
    monkeypatch: pytest.MonkeyPatch, base: Path, alone: Path, tmp_path: Path
) -> None:
    """By relative paths; two shards of 24 are there, one of which the manifest lacks, and a half-written one."""
    pool = tmp_path / "pool"
    pool.mkdir()
    manifest = json.loads((alone / "manifest.json").read_text())
    del manifest["checksum"]  # as a version before checksums wrote it
    manifest["shards"] = manifest["shards"][:1]
    (pool / "manifest.json").write_text(json.dumps(manifest))
    for name in ("shard-00000.safetensors", "shard-00004.safetensors"):
        (pool / name).write_bytes((alone / name).read_bytes())
    (pool / ".shard-00002.safetensors.x.tmp").write_bytes(b"left over")
    before = written(pool)
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "replay", os.path.relpath(base), "--out", "pool", *sizes(), "--ray", 2) == 0
    assert bytes_of(pool) == bytes_of(alone)
    assert {name: when for name, when in written(pool).items() if name in before} == before


def test_what_a_worker_refuses_is_said_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], base: Path, alone: Path, tmp_path: Path
) -> None:
    assert run(monkeypatch, "replay", base, "--out", alone, *sizes(seed=4), "--ray", 2) == 2
    assert "other settings (seed)" in " ".join(capsys.readouterr().err.split())
    assert (
        run(
            monkeypatch, "replay", base, "--out", tmp_path / "pool", *sizes(), "--document-start", "nowhere", "--ray", 1
        )
        == 2
    )
    assert not (tmp_path / "pool").exists()


def _die() -> None:
    os.kill(os.getpid(), 9)


def _refuse() -> None:
    raise OutputExists("it is there", "take another")


def _break() -> None:
    raise ZeroDivisionError("by chance")


def test_a_call_that_fails_or_always_dies_ends() -> None:
    with pytest.raises(OutputExists, match="it is there") as refused:
        anywhere(_refuse)
    assert refused.value.fix == "take another"
    with pytest.raises(WorkerLost, match="by chance"):
        anywhere(_break)
    with pytest.raises(WorkerLost, match="4 workers of Ray died"):
        anywhere(_die)
    assert anywhere(os.getpid) != os.getpid()
