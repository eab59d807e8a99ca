"""An engine is anything with the protocol's members: an object or a name, its rows checked and its pool marked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from keeptune.errors import ConfigError, OutputExists, PoolError
from keeptune.models.modeling import hidden_states
from keeptune.replay.engines import ENGINES, Engine
from keeptune.replay.engines.torch import TorchEngine
from keeptune.replay.generate import sample_pool
from keeptune.replay.openings import Opening
from keeptune.replay.pool import ReplayPool
from tests.helpers.models import make_model, make_tokenizer


class Counting:
    """Counts on from the last token of a row's opening: an engine whose text is known."""

    name = "counting"

    def __init__(self, rows: int = 4, temperature: float = 1.0) -> None:
        self.rows, self.temperature = rows, temperature
        self.calls: list[tuple[int, int]] = []

    def sample(self, rows: int, length: int, opening: Opening, seed: int) -> Tensor:
        self.calls.append((rows, seed))
        opening_BG = torch.tensor(opening).expand(rows, -1)
        return torch.cat([opening_BG, (opening_BG[:, -1:] + 1 + torch.arange(length)) % 259], dim=1)


def make_pool(folder: Path, engine: str | Engine, rows: int = 10, **settings: Any) -> ReplayPool:
    settings = {"length": 6, "dtype": torch.float32, **settings}
    return sample_pool(make_model(), make_tokenizer(), folder, tokens=rows * 6, engine=engine, **settings)


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def test_a_pool_holds_what_the_engine_wrote_and_the_base_predicts_there(tmp_path: Path) -> None:
    engine = Counting()
    pool = make_pool(tmp_path / "pool", engine, start=[5, 7])
    batch = pool.batch(torch.arange(10))
    assert batch.tokens_BW.tolist() == [[first + step for step in range(7)] for first in [5, 7] * 5]
    torch.testing.assert_close(batch.hidden_BTD, hidden_states(make_model(), batch.inputs_BP).detach())
    assert [rows for rows, _ in engine.calls] == [4, 4, 2]
    assert len({seed for _, seed in engine.calls}) == 3


def test_the_pool_names_its_engine_and_only_that_engine_goes_on(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", Counting(temperature=0.5), rows=4)
    assert (pool.settings.engine, manifest(pool.folder)["settings"]["engine"]) == ("counting", "counting")
    assert "temperature 0.5" in pool.settings.sampling
    assert ReplayPool.open(pool.folder).settings == pool.settings
    assert make_pool(pool.folder, Counting(rows=9, temperature=0.5), rows=12).settings.rows_per_shard == 4
    with pytest.raises(OutputExists, match=r"other settings \(sampling, engine\)"):
        make_pool(pool.folder, "torch")


def test_the_torch_engine_is_not_named_and_its_pools_are_as_before(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "name", "torch")
    assert "engine" not in manifest(pool.folder)["settings"]
    assert ReplayPool.open(pool.folder).settings.engine == "torch"
    made = TorchEngine(make_model(), dtype=torch.float32, rows=pool.settings.rows_per_shard)
    of_object = make_pool(tmp_path / "object", made)
    assert pool.shards == of_object.shards and pool.settings == of_object.settings
    assert list(manifest(pool.folder)["settings"]) == [
        "base", "start_token", "start_text", "length", "rows_per_shard", "seed", "sampling_dtype", "hidden_dtype",
        "versions", "prompts", "opening", "openings", "probe", "sampling", "text_sha256", "predictions", "top_k",
    ], "versions without other engines open them"  # fmt: skip


def test_an_engine_has_its_own_temperature(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"temperature is 0\.7, and the engine's is 0\.5"):
        make_pool(tmp_path / "pool", Counting(temperature=0.5), temperature=0.7)
    with pytest.raises(ConfigError, match="temperature is 0"):
        make_pool(tmp_path / "pool", Counting(temperature=0.0))
    assert make_pool(tmp_path / "pool", Counting(temperature=0.5), temperature=0.5).rows == 10


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda tokens: tokens[:, 1:], r"torch\.int64 \[4, 6\], expected torch\.int64 \[4, 7\]"),
        (lambda tokens: tokens[1:], r"\[3, 7\], expected"),
        (lambda tokens: tokens.int(), r"torch\.int32"),
        (lambda tokens: tokens.flip(1), "do not start with their openings"),
        (lambda tokens: tokens + 259 * (torch.arange(7) == 3), "outside the base's vocabulary of 259"),
        (lambda tokens: tokens - 259 * (torch.arange(7) == 3), "outside the base's vocabulary of 259"),
    ],
)
def test_rows_that_were_not_asked_for_are_refused(
    tmp_path: Path, wrong: Callable[[Tensor], Tensor], message: str
) -> None:
    class Wrong(Counting):
        def sample(self, rows: int, length: int, opening: Opening, seed: int) -> Tensor:
            return wrong(super().sample(rows, length, opening, seed))

    with pytest.raises(PoolError, match=rf"the engine 'counting' returned .*{message}"):
        make_pool(tmp_path / "pool", Wrong())
    assert not list((tmp_path / "pool").glob("shard-*"))


@pytest.fixture
def named() -> Iterator[None]:
    """The counting engine under a name, taken out again afterwards."""

    class Named(Counting):
        def __init__(
            self, model: nn.Module, *, dtype: torch.dtype, rows: int, temperature: float, on_token: Any
        ) -> None:
            super().__init__(rows, temperature)

        @staticmethod
        def rows_that_fit(model: nn.Module, length: int, dtype: torch.dtype) -> int:
            return 3

    ENGINES["counting"] = Named
    yield
    del ENGINES["counting"]


@pytest.mark.usefixtures("named")
def test_an_engine_is_known_by_name(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", "counting", rows=7, temperature=2.0)
    assert [shard["rows"] for shard in pool.shards] == [3, 3, 1]
    assert pool.tokens_of(6).tolist() == list(range(7))
    assert (pool.settings.engine, pool.settings.text) == ("counting", pool.settings.sampling)
    with pytest.raises(ConfigError, match="unknown engine 'nosuch'") as refused:
        make_pool(tmp_path / "other", "nosuch")
    assert refused.value.fix == "choose one of torch, vllm, counting"
