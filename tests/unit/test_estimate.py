"""Estimates: what they count is what autograd saves, large models are done in seconds, and shards divide."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import LlamaConfig

from keeptune.errors import ConfigError
from keeptune.estimate import estimate_pool, estimate_tuning, teacher_for_disk
from keeptune.estimate.activations import Rows, saved_bytes
from keeptune.estimate.shape import shape_of
from tests.helpers.cli import run
from tests.helpers.models import make_model

SMALL = LlamaConfig(
    vocab_size=500,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=False,
)
LARGE = LlamaConfig(
    vocab_size=128_256,
    hidden_size=16_384,
    intermediate_size=53_248,
    num_hidden_layers=126,
    num_attention_heads=128,
    num_key_value_heads=8,
    tie_word_embeddings=False,
)
ROWS = Rows(count=3, length=20)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_counted_without_values_is_what_a_real_pass_saves(dtype: torch.dtype) -> None:
    from transformers import LlamaForCausalLM  # noqa: PLC0415

    model = LlamaForCausalLM._from_config(SMALL, attn_implementation="eager").train()
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    found: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    narrow = dtype == torch.bfloat16
    with saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16, enabled=narrow):
        hidden = model.model(input_ids=torch.zeros(3, 20, dtype=torch.int64), use_cache=False).last_hidden_state
    assert hidden.requires_grad
    assert saved_bytes(SMALL, ROWS, dtype) == pytest.approx(sum(found.values()), rel=0.02)


def test_the_shape_is_the_models() -> None:
    model = make_model()
    shape = shape_of(model.config)
    assert shape.parameters == shape.trained == sum(p.numel() for p in model.parameters())
    assert shape_of(model.config, 4).trained == 2 * 4 * (3 * (32 + 64) + 2 * (32 + 32) + 2 * (32 + 16))


def test_shards_divide_and_large_models_take_seconds() -> None:
    start = time.monotonic()
    peaks = []
    for processes in (8, 64, 256):
        found = estimate_tuning(
            LARGE, task=Rows(count=1, length=1024), replay=Rows(count=1, length=128), steps=10, pool_tokens=10**6,
            processes=processes, sharded=True, gpu=True,
        )  # fmt: skip
        peaks.append(found.memory["weights"] + found.memory["optimizer"])
        assert found.disk["pool"] == 10**6 * (16_384 * 2 + 4)
    assert peaks[0] == pytest.approx(12 * shape_of(LARGE).parameters / 8, rel=1e-6)
    assert peaks[0] / peaks[1] == pytest.approx(8, rel=1e-6) and peaks[1] / peaks[2] == pytest.approx(4, rel=1e-6)
    assert time.monotonic() - start < 120
    pool = estimate_pool(LARGE, tokens=10**6, length=128, rows=64, processes=8, sharded=True)
    assert pool.memory["weights"] == shape_of(LARGE).parameters * 4 // 8


@pytest.mark.parametrize(("free", "teacher"), [(10**10, "hidden"), (2 * 10**9, "topk"), (10**8, "none")])
def test_the_teacher_follows_the_disk(free: int, teacher: str) -> None:
    config = LlamaConfig(hidden_size=2048)
    assert teacher_for_disk(config, 10**6, free, dtype=torch.bfloat16, top_k=64) == teacher


def test_quantized_models_are_refused() -> None:
    config = LlamaConfig(hidden_size=64)
    config.quantization_config = {"quant_method": "gptq"}
    with pytest.raises(ConfigError, match="estimates are of plain weights"):
        shape_of(config)


@pytest.mark.parametrize("gpus", ["0", "8"])
def test_the_command_line_prints_it_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path, tmp_path: Path, gpus: str
) -> None:
    out = tmp_path / "out"
    command = ["tune", str(model_folder), "no-data", "--out", str(out), "--estimate", gpus, "--tflops", "1"]
    assert run(monkeypatch, *command) == 0
    printed = capsys.readouterr().out
    assert "peak" in printed and "teacher by disk: hidden" in printed and "1 TFLOP/s (given)" in printed
    assert run(monkeypatch, "replay", str(model_folder), "--estimate", gpus) == 0
    assert "keys and values" in capsys.readouterr().out
    assert not out.exists()
    assert run(monkeypatch, "replay", str(model_folder), "--out", str(out), "--tflops", "1") == 2
