"""A pool of real text: which rows it holds, that it survives a kill, refuses other text, and trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from keeptune import cli
from keeptune.data.encode import text_rows
from keeptune.errors import ConfigError, OutputExists, PoolError, PoolMismatch
from keeptune.models.modeling import fingerprint, hidden_states
from keeptune.replay import generate
from keeptune.replay.generate import sample_pool, text_pool
from keeptune.replay.manifest import read_manifest
from keeptune.replay.pool import ReplayPool
from keeptune.storage import sha256_file
from tests.helpers.models import make_model, make_tokenizer

LENGTH = 12


@pytest.fixture
def texts(tmp_path: Path) -> str:
    """Twelve documents, the longer the later, of one byte and so one token a character."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number:02d}.txt").write_text(chr(97 + number) * (5 * number + 3))
    return str(folder)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "_TEXT_ROWS_PER_SHARD", 4)


def rows(count: int = 10, seed: int = 0) -> Tensor:
    tokens = torch.randint(3, 259, (count, LENGTH + 1), generator=torch.Generator().manual_seed(seed))
    tokens[:, 0] = 0
    return tokens


def make_pool(folder: Path, tokens: Tensor | None = None, source: str = "notes", **settings: Any) -> ReplayPool:
    settings = {"dtype": torch.float32, **settings}
    return text_pool(
        make_model(), make_tokenizer(), folder, rows() if tokens is None else tokens, source=source, **settings
    )


def bytes_of(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("kept", ["hidden", "topk", "none"])
def test_holds_the_rows_and_what_the_base_predicts_on_them(tmp_path: Path, kept: Any) -> None:
    pool = make_pool(tmp_path / "pool", predictions=kept, top_k=5)
    batch = pool.batch(torch.arange(10))
    assert torch.equal(batch.tokens_BW, rows())
    assert (pool.rows, pool.settings.length, pool.settings.start_token) == (10, LENGTH, 0)
    assert (pool.settings.start_text, pool.settings.text) == ("<|endoftext|>", "real text from notes")
    pool.check_base(fingerprint(make_model()))
    with pytest.raises(PoolMismatch):
        pool.check_base(fingerprint(make_model(seed=1)))
    base_BTV = make_model()(input_ids=batch.inputs_BP).logits.log_softmax(-1).detach()
    if kept == "hidden":
        torch.testing.assert_close(batch.hidden_BTD, hidden_states(make_model(), batch.inputs_BP).detach())
    if kept == "topk":
        torch.testing.assert_close(
            batch.outputs["top_log_probs"][..., :-1].float(), base_BTV.topk(5).values, rtol=2e-3, atol=0
        )


@pytest.mark.parametrize("shards", [0, 1, 2])
def test_an_interrupted_pool_is_finished_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    whole = make_pool(tmp_path / "whole")
    write, calls = ReplayPool.write, []

    def dies(self: ReplayPool, *given: Any) -> dict[str, Any]:
        if len(calls) == shards:
            raise KeyboardInterrupt
        calls.append(1)
        return write(self, *given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ReplayPool, "write", dies)
        make_pool(tmp_path / "parts")
    assert len(list((tmp_path / "parts").glob("shard-*"))) == shards
    with pytest.raises(OutputExists, match="text_sha256"):
        make_pool(tmp_path / "parts", rows(seed=1))
    make_pool(tmp_path / "parts")
    assert bytes_of(tmp_path / "parts") == bytes_of(whole.folder)


def test_plain_texts_and_data_sets_are_cut_as_text_rows_cuts_them(texts: str, tmp_path: Path) -> None:
    strings = [path.read_text() for path in sorted(Path(texts).iterdir())]
    how: dict[str, Any] = {"tokens": 60, "length": LENGTH, "seed": 3, "start": "<|im_end|>"}
    cut = text_rows(texts, make_tokenizer(), **how)
    pools = {
        "rows": text_pool(make_model(), make_tokenizer(), tmp_path / "rows", cut, source="notes"),
        "strings": text_pool(make_model(), make_tokenizer(), tmp_path / "strings", texts=strings, **how),
        "named": text_pool(make_model(), make_tokenizer(), tmp_path / "named", texts, **how),
    }
    assert len({pool.settings.text_sha256 for pool in pools.values()}) == 1
    assert pools["rows"].shards == pools["strings"].shards == pools["named"].shards
    assert [pool.settings.text.removeprefix("real text from ") for pool in pools.values()] == [
        "notes",
        "12 texts",
        texts,
    ]
    whole = text_pool(make_model(), make_tokenizer(), tmp_path / "whole", ["x" * 600])
    assert (whole.rows, whole.settings.length) == (4, 128), "every row there is, of the length of sampled ones"


def test_texts_that_cannot_be_cut_are_refused(tmp_path: Path) -> None:
    for given, message in [
        (["too short"], "no document of the texts has 12 tokens"),
        ([], "list of texts is empty"),
        (["fine" * 9, 5], "text 2 is int"),
        (rows(), "rows are cut already"),
    ]:
        with pytest.raises(ValueError, match=message):
            text_pool(make_model(), make_tokenizer(), tmp_path / "pool", given, length=LENGTH)
    assert not (tmp_path / "pool").exists()


def test_another_pool_is_refused_and_damage_found(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    before = bytes_of(pool.folder)
    for other in ({"tokens": rows(seed=1)}, {"tokens": rows(6)}, {"source": "letters"}, {"predictions": "none"}):
        with pytest.raises(OutputExists, match="other settings"):
            make_pool(tmp_path / "pool", **other)
    with pytest.raises(OutputExists, match=r"sampling.*text_sha256"):
        sample_pool(make_model(), make_tokenizer(), pool.folder, tokens=120, length=LENGTH, dtype=torch.float32)
    sampled = sample_pool(make_model(), make_tokenizer(), tmp_path / "own", tokens=120, length=LENGTH)
    with pytest.raises(OutputExists, match=r"sampling.*text_sha256"):
        make_pool(sampled.folder)
    assert sampled.settings.text == "self"
    assert bytes_of(pool.folder) == before
    shard = pool.folder / "shard-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(PoolError, match="damaged"):
        make_pool(tmp_path / "pool")


def test_a_pool_of_an_earlier_version_still_opens(tmp_path: Path) -> None:
    folder = sample_pool(make_model(), make_tokenizer(), tmp_path / "pool", tokens=24, length=LENGTH).folder
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["settings"]["text_sha256"], manifest["checksum"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert ReplayPool.open(folder).settings.text == "self"
    sample_pool(make_model(), make_tokenizer(), folder, tokens=48, length=LENGTH)
    assert ReplayPool.open(folder).rows == 4


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (rows()[0], "does not hold rows of tokens"),
        (rows().float(), "does not hold rows of tokens"),
        (rows()[:0], "does not hold rows of tokens"),
        (rows()[:, :2], "does not hold rows of tokens"),
        (rows().index_fill(1, torch.tensor([3]), 259), "outside the base's vocabulary of 259"),
        (rows().index_fill(1, torch.tensor([3]), -1), "outside the base's vocabulary"),
        (rows().index_fill_(0, torch.tensor([3]), 7), "start with different tokens"),
    ],
)
def test_rows_that_are_none_are_refused(tmp_path: Path, tokens: Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_pool(tmp_path / "pool", tokens)
    assert not (tmp_path / "pool").exists()


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["keeptune", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


@pytest.mark.parametrize("more", [[], ["--objective", "ntp"], ["--budget", 0.05]])
def test_tune_replays_a_pool_of_text(
    monkeypatch: pytest.MonkeyPatch, model_folder: Path, texts: str, tmp_path: Path, more: list[object]
) -> None:
    pool, out = tmp_path / "pool", tmp_path / "run"
    assert run(monkeypatch, "replay", model_folder, "--text", texts, "--out", pool, "--length", LENGTH) == 0
    small = ["--steps", 4, "--batch-size", 2, "--max-length", 32, "--drift-rows", 4]
    assert run(monkeypatch, "tune", model_folder, texts, "--out", out, "--replay", pool, *small, *more) == 0
    first, *_, last = map(json.loads, (out / "runs.jsonl").read_text().splitlines())
    assert abs(first["KL"]) < 1e-6 < last["KL"]
    assert last["L_f_on"] == f"real text from {texts}"
    card = (out / "model" / "README.md").read_text()
    assert f"replay (real text from {texts}), " in card
    assert "self-generated" not in card and "own text" not in card


def test_real_text_is_not_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path, texts: str, tmp_path: Path
) -> None:
    command = ["replay", model_folder, "--text", texts, "--out", tmp_path / "pool"]
    assert run(monkeypatch, *command, "--prompts", "chat") == 2
    assert "--prompts and --temperature are for sampling" in capsys.readouterr().err
    assert run(monkeypatch, *command, "--temperature", 0.5) == 2
    assert "leave out --prompts and --temperature" in capsys.readouterr().err
    assert read_manifest(tmp_path / "pool") is None
