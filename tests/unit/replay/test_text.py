"""A pool of real text: which rows it holds, that it survives a kill, refuses other text, and trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from keeptune import cli
from keeptune.errors import ConfigError, OutputExists, PoolError, PoolMismatch, SourceNotFound
from keeptune.models.modeling import fingerprint, hidden_states
from keeptune.replay import text as text_module
from keeptune.replay.generate import sample_pool
from keeptune.replay.pool import ReplayPool, read_manifest
from keeptune.replay.text import text_pool, text_rows
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
    monkeypatch.setattr(text_module, "_ROWS_PER_SHARD", 4)


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
    assert torch.equal(batch.tokens_BT1, rows())
    assert (pool.rows, pool.settings.length, pool.settings.start_token) == (10, LENGTH, 0)
    assert (pool.settings.start_text, pool.settings.text) == ("<|endoftext|>", "real text from notes")
    pool.check_base(fingerprint(make_model()))
    with pytest.raises(PoolMismatch):
        pool.check_base(fingerprint(make_model(seed=1)))
    base_BTV = make_model()(input_ids=batch.inputs_BT).logits.log_softmax(-1).detach()
    if kept == "hidden":
        torch.testing.assert_close(batch.hidden_BTD, hidden_states(make_model(), batch.inputs_BT).detach())
    if kept == "topk":
        torch.testing.assert_close(
            batch.top_log_probs_BTK1[..., :-1].float(), base_BTV.topk(5).values, rtol=2e-3, atol=0
        )


@pytest.mark.parametrize("shards", [0, 1, 2])
def test_an_interrupted_pool_is_finished_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    whole = make_pool(tmp_path / "whole")
    append, calls = ReplayPool.append, []

    def dies(self: ReplayPool, *tensors: Tensor) -> None:
        if len(calls) == shards:
            raise KeyboardInterrupt
        calls.append(1)
        append(self, *tensors)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ReplayPool, "append", dies)
        make_pool(tmp_path / "parts")
    assert len(list((tmp_path / "parts").glob("shard-*"))) == shards
    with pytest.raises(OutputExists, match="text_sha256"):
        make_pool(tmp_path / "parts", rows(seed=1))
    make_pool(tmp_path / "parts")
    assert bytes_of(tmp_path / "parts") == bytes_of(whole.folder)


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
    del manifest["settings"]["text_sha256"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert ReplayPool.open(folder).settings.text == "self"
    sample_pool(make_model(), make_tokenizer(), folder, tokens=48, length=LENGTH)
    assert ReplayPool.open(folder).rows == 4


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (rows()[0], "no rows of tokens"),
        (rows().float(), "no rows of tokens"),
        (rows()[:0], "no rows of tokens"),
        (rows()[:, :2], "no rows of tokens"),
        (rows().index_fill(1, torch.tensor([3]), 259), "outside the base's vocabulary of 259"),
        (rows().index_fill(1, torch.tensor([3]), -1), "outside the base's vocabulary"),
        (rows().index_fill_(0, torch.tensor([3]), 7), "start with different tokens"),
    ],
)
def test_rows_that_are_none_are_refused(tmp_path: Path, tokens: Tensor, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_pool(tmp_path / "pool", tokens)
    assert not (tmp_path / "pool").exists()


def test_text_is_cut_by_document_in_random_order(texts: str, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = make_tokenizer()
    tokens_RT1 = text_rows(texts, tokenizer, tokens=10**6, length=LENGTH)
    whole = {chr(97 + number): (5 * number + 3) // LENGTH for number in range(12)}
    assert tokens_RT1.shape == (sum(whole.values()), LENGTH + 1)
    assert f"gives {len(tokens_RT1)} rows of 12 tokens, and 83334 were asked for" in capsys.readouterr().err
    assert (tokens_RT1[:, 0] == 0).all()
    decoded = [tokenizer.decode(row[1:]) for row in tokens_RT1.tolist()]
    order = list(dict.fromkeys(row[0] for row in decoded))
    assert decoded == [letter * LENGTH for letter in order for _ in range(whole[letter])], "documents stay together"
    assert order != sorted(order)
    assert torch.equal(text_rows(texts, tokenizer, tokens=49, length=LENGTH), tokens_RT1[:5])
    assert torch.equal(text_rows(texts, tokenizer, tokens=48, length=LENGTH), tokens_RT1[:4])
    assert capsys.readouterr().err == ""
    assert not torch.equal(text_rows(texts, tokenizer, tokens=10**6, length=LENGTH, seed=1), tokens_RT1)
    named = text_rows(texts, tokenizer, tokens=12, length=LENGTH, start="<|im_end|>")
    assert named[0, 0] == 2


def test_text_that_gives_no_rows_is_refused(texts: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no document of .* has 99 tokens"):
        text_rows(texts, make_tokenizer(), tokens=100, length=99)
    with pytest.raises(SourceNotFound):
        text_rows("nowhere.txt", make_tokenizer(), tokens=100, length=12)
    chats = tmp_path / "chats.jsonl"
    chats.write_text(json.dumps({"prompt": "a" * 40, "completion": "b"}) + "\n")
    with pytest.raises(ConfigError, match="documents of prompt and completion cannot be cut"):
        text_rows(str(chats), make_tokenizer(), tokens=12, length=12)


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
    assert "does not start as a chat" in capsys.readouterr().err
    assert run(monkeypatch, *command, "--temperature", 0.5) == 2
    assert "at a temperature" in capsys.readouterr().err
    assert read_manifest(tmp_path / "pool") is None
