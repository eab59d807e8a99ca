"""A manifest is read as it was written, and a damaged one names the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keeptune.errors import PoolError
from keeptune.replay.manifest import Manifest, PoolSettings, Shard, read_manifest
from keeptune.replay.pool import ReplayPool

SETTINGS = PoolSettings(
    base="a1",
    start_token=0,
    start_text="<s>",
    length=8,
    rows_per_shard=4,
    seed=1,
    sampling_dtype="float32",
    hidden_dtype="float32",
    versions={"torch": "2.9"},
    openings=[[0]],
    probe={"start": {"entropy": 1.0, "top": "a", "share": 0.5, "noise": None, "known": 2.0}},
)


@pytest.mark.parametrize(
    ("part", "change", "field"),
    [
        ("settings", {"length": "x"}, "length"),
        ("settings", {"openings": [["a"]]}, "openings.0.0"),
        ("settings", {"predictions": "all"}, "predictions"),
        ("settings", {"probe": {"start": {"top": 1}}}, "probe.start"),
        ("settings", {"of_a_later_version": 1}, "of_a_later_version"),
        ("settings", {"versions": []}, "versions"),
        ("rows", "9", "rows"),
        ("shards", [{"file": "shard-00000.safetensors"}], "shards.0.rows"),
        ("shards", [[]], "shards.0"),
    ],
)
def test_a_damaged_manifest_names_the_field(tmp_path: Path, part: str, change: Any, field: str) -> None:
    Manifest(settings=SETTINGS, rows=0, shards=[]).save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest[part] = {**manifest[part], **change} if isinstance(change, dict) else change
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PoolError, match=rf"manifest\.json cannot be read \(.*{field}"):
        read_manifest(tmp_path)


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    shard: Shard = {"file": "shard-00000.safetensors", "rows": 4, "sha256": "b" * 64}
    Manifest(settings=SETTINGS, rows=4, shards=[shard]).save(tmp_path)
    file, read, refused = tmp_path / "manifest.json", read_manifest(tmp_path), 0
    whole = file.read_bytes()
    places = range(0, len(whole), 11)
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        file.write_bytes(damaged)
        try:
            assert read_manifest(tmp_path) == read, whole[: place + 1]
        except PoolError:
            refused += 1
    assert refused > 0.5 * len(places)  # the rest is white space, and the name of the checksum


def test_a_manifest_and_what_a_process_sends_come_back(tmp_path: Path) -> None:
    shard: Shard = {"file": "shard-00001.safetensors", "rows": 4, "sha256": "b"}
    pool = ReplayPool(folder=tmp_path, settings=SETTINGS, rows=8, shards=[], ready={1: shard})
    assert ReplayPool.from_state(tmp_path, json.loads(json.dumps(pool.state()))) == pool
    pool.save(tmp_path)
    assert read_manifest(tmp_path) == Manifest(settings=SETTINGS, rows=8, shards=[])
