"""Samples follow the base's own distribution, far into a row too; others are sampled without a cache, or refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.replay.decoding.modules import ModuleDecoder, PrefixDecoder
from keeptune.replay.engines.torch import TorchEngine
from keeptune.replay.generate import sample_pool, text_pool
from keeptune.replay.sampled import sampling_z, stepped_difference
from tests.helpers.families import family_model
from tests.helpers.models import make_model, make_tokenizer

LENGTH = 40


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.INFO, logger="keeptune")
    return caplog


def pool(model: Any, folder: Path, **settings: Any) -> Any:
    settings = {"tokens": 64 * LENGTH, "length": LENGTH, "dtype": torch.float32, "predictions": "none", **settings}
    return sample_pool(model, make_tokenizer(), folder, **settings)


def z_of(made: Any, model: Any, temperature: float = 1.0) -> float:
    tokens_RT1 = made.batch(torch.arange(made.rows)).tokens_BW
    return sampling_z(tokens_RT1, model, torch.float32, made.settings.length, temperature)


@pytest.mark.parametrize("name", ["llama", "bamba", "mamba", "rwkv", "jamba", "minimax", "gemma3_text", "qwen3_next"])
def test_samples_of_every_kind_of_cache_follow_the_base(name: str, tmp_path: Path) -> None:
    model = make_model() if name == "llama" else family_model(name)
    made = pool(model, tmp_path / "pool")
    assert abs(z_of(made, model)) < 3
    shuffled = made.batch(torch.arange(made.rows)).tokens_BW[:, torch.randperm(LENGTH + 1)]
    assert abs(sampling_z(shuffled, model, torch.float32, LENGTH, 1.0)) > 6, "the test could not tell"


@pytest.mark.parametrize("temperature", [1e-6, 0.3, 1.0, 2.0, 1e6])
def test_z_is_of_the_temperature(temperature: float, tmp_path: Path) -> None:
    model = make_model()
    made = pool(model, tmp_path / "pool", temperature=temperature)
    assert abs(z_of(made, model, temperature)) < 3
    if temperature in (0.3, 2.0):
        assert abs(z_of(made, model)) > 6


def test_one_unlikely_token_of_a_nearly_certain_model_is_no_evidence() -> None:
    model = make_model(tie=False)
    with torch.no_grad():
        model.lm_head.weight.mul_(30.0)
    tokens_RT1 = TorchEngine(model).sample(4, 20, [0], seed=0).clone()
    assert abs(sampling_z(tokens_RT1, model, torch.float32, 20, 1.0)) < 3
    with torch.no_grad():
        log_p_TV = model(input_ids=tokens_RT1[:1, :-1]).logits[0].log_softmax(-1)
    tokens_RT1[0, -1] = (log_p_TV[-1] + 12).abs().argmin()
    assert 1 < sampling_z(tokens_RT1, model, torch.float32, 20, 1.0) < 3


class _ForgetsLate(ModuleDecoder):
    """A cache that loses what lies 24 tokens back, where no probe of the decoder reaches."""

    def begin(self, rows: int, length: int) -> None:
        super().begin(rows, length)
        self.read = 0

    def step(self, tokens_B1: torch.Tensor) -> torch.Tensor:
        if self.read and not self.read % 24:
            super().begin(len(tokens_B1), LENGTH)
        self.read += 1
        return super().step(tokens_B1)


def test_a_fault_far_into_a_row_is_seen_and_sampled_again(
    tmp_path: Path, messages: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keeptune.replay.decoding.decoder.ModuleDecoder", _ForgetsLate)
    model = family_model("gpt_neo")
    engine = TorchEngine(model, rows=64)
    assert isinstance(engine.decoder, _ForgetsLate)
    tokens_RT1 = engine.sample(64, LENGTH, [0], seed=1)
    assert "nats from token 25" in str(stepped_difference(tokens_RT1, model, torch.float32, engine))
    assert engine.slow_down() and isinstance(engine.decoder, PrefixDecoder) and not engine.slow_down()
    tokens_RT1 = engine.sample(64, LENGTH, [0], seed=1)
    assert stepped_difference(tokens_RT1, model, torch.float32, engine) is None
    messages.clear()
    assert abs(z_of(pool(model, tmp_path / "pool"), model)) < 3
    assert "sampled again without a cache" in messages.text


def test_rows_beyond_the_length_from_which_rope_is_scaled_are_refused(tmp_path: Path) -> None:
    """A prediction then depends on how many tokens follow it, so no text is a sample of it."""
    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    rope = {"rope_type": "dynamic", "factor": 8.0, "rope_theta": 100.0}
    config = LlamaConfig(
        vocab_size=259, max_position_embeddings=20, rope_parameters=rope, initializer_range=0.3, **size
    )
    model = LlamaForCausalLM(config).eval()
    assert abs(z_of(pool(model, tmp_path / "short", length=18), model)) < 3
    with pytest.raises(ConfigError, match="LlamaForCausalLM") as refused:
        pool(model, tmp_path / "long")
    assert "shorter rows" in refused.value.fix and not (tmp_path / "long").exists()


def test_an_engine_that_runs_another_model_is_refused_and_leaves_nothing(
    tmp_path: Path, messages: pytest.LogCaptureFixture
) -> None:
    other = TorchEngine(make_model(seed=1), rows=64)
    with pytest.raises(ConfigError, match=r"samples of LlamaForCausalLM do not follow its .* \(drawn log-prob"):
        pool(make_model(seed=2), tmp_path / "pool", engine=other)
    assert not (tmp_path / "pool").exists()

    class Foreign:
        """The same engine without its promises: only the rows are known of it."""

        name, rows, temperature = "foreign", 64, 1.0
        sample = other.sample

    made = pool(make_model(seed=2), tmp_path / "pool", engine=Foreign())
    assert made.rows == 64 and "does the engine 'foreign' run another model" in messages.text


def test_what_stood_in_a_folder_stays_when_a_pool_fails(tmp_path: Path) -> None:
    folder = tmp_path / "pool"
    made = pool(make_model(seed=2), folder, tokens=16 * LENGTH, engine=TorchEngine(make_model(seed=2), rows=16))
    with pytest.raises(ConfigError, match="do not follow"):
        pool(make_model(seed=2), folder, tokens=32 * LENGTH, engine=TorchEngine(make_model(seed=1), rows=16))
    assert [path.name for path in sorted(folder.iterdir())] == ["manifest.json", "shard-00000.safetensors"]
    again = pool(make_model(seed=2), folder, tokens=32 * LENGTH, engine=TorchEngine(make_model(seed=2), rows=16))
    assert again.rows == 32 and again.shards[0] == made.shards[0]


def test_a_pool_of_text_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: Any, **named: Any) -> None:
        raise RuntimeError("out of patience")

    monkeypatch.setattr("keeptune.replay.write.teacher_outputs", fails)
    with pytest.raises(RuntimeError, match="patience"):
        text_pool(make_model(), make_tokenizer(), tmp_path / "pool", ["some text " * 20] * 4, length=16)
    assert not (tmp_path / "pool").exists()
