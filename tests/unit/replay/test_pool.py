"""A pool is the same bytes for the same seed, survives kills, and is refused when it is damaged or another base's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from keeptune.errors import ConfigError, OutputExists, PoolError, PoolMismatch, SourceNotFound
from keeptune.log import Task
from keeptune.models.modeling import fingerprint, hidden_states
from keeptune.replay.engines import torch as engine
from keeptune.replay.generate import sample_pool
from keeptune.replay.pool import ReplayPool
from keeptune.storage import sha256_file
from tests.helpers.models import make_model, make_tokenizer


def make_pool(folder: Path, rows: int = 10, seed: int = 0, model: Any = None, **settings: Any) -> ReplayPool:
    settings = {"length": 12, "dtype": torch.float32, **settings}
    return sample_pool(model or make_model(), make_tokenizer(), folder, tokens=rows * 12, seed=seed, **settings)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engine._MOST_ROWS, "cpu", 4)


def bytes_of(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir())}


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    make_pool(tmp_path / "a")
    make_pool(tmp_path / "b")
    make_pool(tmp_path / "c", seed=1)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    assert bytes_of(tmp_path / "a").keys() == bytes_of(tmp_path / "c").keys()
    assert bytes_of(tmp_path / "a") != bytes_of(tmp_path / "c")


def test_holds_what_the_base_wrote_and_predicted(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    assert (pool.rows, pool.tokens) == (10, 120)
    batch = pool.batch(torch.tensor([9, 0, 4]))
    assert batch.tokens_BW.shape == (3, 13)
    assert (batch.tokens_BW[:, 0] == 0).all()
    assert torch.equal(batch.targets_BT[:, :-1], batch.inputs_BP[:, 1:])
    torch.testing.assert_close(batch.hidden_BTD, hidden_states(make_model(), batch.inputs_BP).detach())
    assert torch.equal(batch.tokens_BW[0], pool.tokens_of(9))
    assert len({tuple(pool.tokens_of(row).tolist()) for row in range(10)}) == 10


def test_rows_start_with_each_of_several_tokens_in_turn(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", start=[5, 7, 9])
    tokens = pool.batch(torch.arange(10)).tokens_BW
    assert tokens[:, 0].tolist() == [5, 7, 9, 5, 7, 9, 5, 7, 9, 5]
    assert (pool.settings.opening, pool.settings.openings) == ("given", [[5], [7], [9]])
    one = make_pool(tmp_path / "one", start=5)
    assert torch.equal(tokens[::3], one.batch(torch.arange(0, 10, 3)).tokens_BW), "draws depend on the row alone"
    with pytest.raises(ConfigError, match="list of start tokens is empty"):
        make_pool(tmp_path / "none", start=[])
    with pytest.raises(OutputExists, match="openings"):
        make_pool(tmp_path / "pool", start=[5, 9, 7])


def test_a_lower_temperature_writes_likelier_text(tmp_path: Path) -> None:
    surprisals = []
    for temperature in (0.5, 1.0, 2.0):
        pool = make_pool(tmp_path / str(temperature), rows=40, temperature=temperature)
        batch = pool.batch(torch.arange(40))
        with torch.no_grad():
            log_probs_BTV = make_model()(input_ids=batch.inputs_BP).logits.log_softmax(-1)
            # What is kept is the base's at temperature 1.
            torch.testing.assert_close(batch.hidden_BTD, hidden_states(make_model(), batch.inputs_BP))
        surprisals.append(-log_probs_BTV.gather(-1, batch.targets_BT[..., None]).mean().item())
    assert surprisals[0] < surprisals[1] - 0.3 < surprisals[1] < surprisals[2] - 0.1
    assert "temperature 0.5," in ReplayPool.open(tmp_path / "0.5").settings.text
    assert bytes_of(make_pool(tmp_path / "default", rows=40).folder) == bytes_of(tmp_path / "1.0")
    assert ReplayPool.open(tmp_path / "1.0").settings.text == "self"
    with pytest.raises(OutputExists, match=r"\(sampling\)"):
        make_pool(tmp_path / "0.5", rows=60, temperature=0.50000001)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_that_is_none_is_refused(tmp_path: Path, temperature: float) -> None:
    with pytest.raises(ConfigError, match="temperature is"):
        make_pool(tmp_path / "pool", temperature=temperature)
    assert not (tmp_path / "pool").exists()


def test_an_interrupted_pool_is_finished_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_pool(tmp_path / "whole")
    write, calls = ReplayPool.write, []

    def dies_at_the_third_shard(self: ReplayPool, *given: Any) -> dict[str, Any]:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return write(self, *given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ReplayPool, "write", dies_at_the_third_shard)
        make_pool(tmp_path / "parts")
    with pytest.raises(PoolError, match="unfinished: 8 of 10"):
        ReplayPool.open(tmp_path / "parts")
    make_pool(tmp_path / "parts")
    assert bytes_of(tmp_path / "parts") == bytes_of(whole.folder)


@pytest.mark.parametrize("shards", [0, 1, 2])
def test_a_stop_in_the_middle_of_a_shard_repeats_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    whole = make_pool(tmp_path / "whole")
    advance = Task.advance

    def stops(self: Task, units: int = 1, note: str | None = None) -> None:
        advance(self, units, note)
        if self.done > shards * 4 * 12 + 5:
            raise KeyboardInterrupt

    model = make_model().train()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Task, "advance", stops)
        make_pool(tmp_path / "parts", model=model)
    assert model.training
    assert sorted(path.name for path in (tmp_path / "parts").glob("shard-*")) == [
        f"shard-{shard:05d}.safetensors" for shard in range(shards)
    ]
    # A machine with room for more rows goes on with the number that the pool was begun with.
    monkeypatch.setitem(engine._MOST_ROWS, "cpu", 64)
    resumed = make_pool(tmp_path / "parts")
    assert resumed.settings.rows_per_shard == 4
    assert bytes_of(tmp_path / "parts") == bytes_of(whole.folder)


def test_growing_goes_on_with_the_recorded_number_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_pool(tmp_path / "grown", rows=8)
    monkeypatch.setattr(engine, "free_bytes", lambda device: 0)
    grown = make_pool(tmp_path / "grown", rows=12)
    monkeypatch.undo()
    monkeypatch.setitem(engine._MOST_ROWS, "cpu", 4)
    whole = make_pool(tmp_path / "whole", rows=12)
    assert bytes_of(grown.folder) == bytes_of(whole.folder)


def test_a_finished_pool_is_not_written_again_and_can_grow(tmp_path: Path) -> None:
    before = make_pool(tmp_path / "pool", rows=6)
    times = {path.name: path.stat().st_mtime_ns for path in before.folder.glob("shard-*")}
    make_pool(tmp_path / "pool", rows=6)
    grown = make_pool(tmp_path / "pool", rows=9)
    assert {name: (before.folder / name).stat().st_mtime_ns for name in times} == times
    assert grown.rows == 9
    assert torch.equal(grown.tokens_of(5), before.tokens_of(5))
    assert len({tuple(grown.tokens_of(row).tolist()) for row in range(9)}) == 9


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest"])
def test_damage_is_found(tmp_path: Path, damage: str) -> None:
    folder = make_pool(tmp_path / "pool").folder
    shard = folder / "shard-00001.safetensors"
    content = bytearray(shard.read_bytes())
    if damage == "flip":
        content[-7] ^= 1
        shard.write_bytes(content)
    elif damage == "truncate":
        shard.write_bytes(content[:-100])
    elif damage == "remove":
        shard.unlink()
    else:
        (folder / "manifest.json").write_text('{"format": 1')
    with pytest.raises(PoolError, match=r"damaged|cannot be read") as caught:
        ReplayPool.open(folder)
    assert "again" in caught.value.fix
    with pytest.raises(PoolError):
        make_pool(tmp_path / "pool")


def test_a_shard_cannot_point_outside_the_folder(tmp_path: Path) -> None:
    folder = make_pool(tmp_path / "pool").folder
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][0]["file"] = "../elsewhere.safetensors"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(PoolError, match="outside the folder"):
        ReplayPool.open(folder)


def test_another_base_is_refused(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    pool.check_base(fingerprint(make_model()))
    with pytest.raises(PoolMismatch, match="another base"):
        pool.check_base(fingerprint(make_model(seed=1)))
    barely = make_model()
    with torch.no_grad():
        barely.model.layers[0].mlp.up_proj.weight[3] *= 1.02
    with pytest.raises(PoolMismatch):
        pool.check_base(fingerprint(barely))
    pool.check_base(fingerprint(make_model().to(torch.bfloat16)))


def test_an_occupied_folder_is_refused(tmp_path: Path) -> None:
    make_pool(tmp_path / "pool")
    with pytest.raises(OutputExists, match="other settings \\(seed\\)"):
        make_pool(tmp_path / "pool", seed=5)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExists, match="contains no replay pool"):
        make_pool(tmp_path / "other")
    with pytest.raises(SourceNotFound):
        ReplayPool.open(tmp_path / "nowhere")


def test_document_start_can_be_named(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", start="<|im_start|>")
    assert (pool.settings.start_token, pool.settings.start_text) == (1, "<|im_start|>")
    assert (pool.batch(torch.arange(3)).tokens_BW[:, 0] == 1).all()
    with pytest.raises(ConfigError):
        make_pool(tmp_path / "none", start="<nosuchtoken>")
