"""The draw follows the distribution exactly; the decode loop is the model's own ancestral sampling; rows fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from keeptune.errors import ConfigError
from keeptune.replay.engines import torch as engine
from keeptune.replay.engines.torch import TorchEngine, draw
from keeptune.replay.generate import sample_pool
from tests.helpers.families import FAMILIES, family_model
from tests.helpers.models import make_model, make_tokenizer


def uniforms(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("vocabulary", [3, 256, 300, 1000])
def test_draw_inverts_the_cumulative_distribution(vocabulary: int) -> None:
    logits_V = torch.randn(vocabulary, generator=torch.Generator().manual_seed(1)) * 3
    uniform_B = uniforms(4000)
    cumulative_V = logits_V.double().softmax(-1).cumsum(-1)
    expected_B = torch.searchsorted(cumulative_V, uniform_B, right=True)
    drawn_B = draw(logits_V.expand(4000, -1), uniform_B)
    # fp32 weights can move a boundary by a rounding error: almost all draws are the same word, none far off.
    assert (drawn_B == expected_B).float().mean() > 0.999
    assert ((drawn_B - expected_B).abs() <= 1).all()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_a_temperature_divides_the_logits(temperature: float) -> None:
    logits_V = torch.randn(300, generator=torch.Generator().manual_seed(1)) * 3
    drawn_B = draw(logits_V.expand(4000, -1), uniforms(4000), temperature)
    assert goodness_of_fit(drawn_B, (logits_V.double() / temperature).softmax(-1)) > 1e-3
    assert goodness_of_fit(drawn_B, (logits_V.double() / (0.7 * temperature)).softmax(-1)) < 1e-6


def test_extreme_temperatures_take_the_likeliest_word_or_any() -> None:
    logits_BV = torch.tensor([[1.0, 3.0, 3.0 - 1e-6, -torch.inf]]).expand(1000, -1)
    assert (draw(logits_BV, uniforms(1000), 1e-300) == 1).all()
    assert torch.bincount(draw(logits_BV, uniforms(1000), 1e300), minlength=4).min() == 0
    assert torch.bincount(draw(logits_BV, uniforms(1000), 1e300))[:3].min() > 250


def test_draw_never_takes_a_word_of_zero_probability() -> None:
    logits_BV = torch.full((3, 600), float("-inf"))
    logits_BV[:, 299] = 0.0
    logits_BV[:, 5] = -1.0
    drawn = draw(logits_BV, torch.tensor([0.0, 0.5, 1.0 - 2**-53], dtype=torch.float64))
    assert drawn.tolist() == [5, 299, 299]


def test_samples_follow_the_models_own_distribution() -> None:
    model = make_model(seed=3)
    rows = 6000
    tokens = TorchEngine(model).sample(rows, 2, [0], seed=11)
    assert tokens.shape == (rows, 3)
    assert (tokens[:, 0] == 0).all()
    first_V = model(input_ids=torch.tensor([[0]])).logits[0, -1].detach().double().softmax(-1)
    assert goodness_of_fit(tokens[:, 1], first_V) > 1e-3
    commonest = int(tokens[:, 1].mode().values)
    second_V = model(input_ids=torch.tensor([[0, commonest]])).logits[0, -1].detach().double().softmax(-1)
    assert goodness_of_fit(tokens[tokens[:, 1] == commonest, 2], second_V) > 1e-3
    assert goodness_of_fit(tokens[:, 1], second_V) < 1e-6, "the test could not tell two distributions apart"


def goodness_of_fit(drawn: Tensor, probability_V: Tensor) -> float:
    """p-value of a chi-square test, words expected fewer than five times pooled."""
    expected_V = probability_V * len(drawn)
    observed_V = torch.bincount(drawn, minlength=len(probability_V)).double()
    common = expected_V >= 5
    observed = [*observed_V[common].tolist(), float(observed_V[~common].sum())]
    expected = [*expected_V[common].tolist(), float(expected_V[~common].sum())]
    return float(chisquare(observed, expected, sum_check=False).pvalue)


def test_cached_decoding_equals_full_forwards() -> None:
    model = make_model(seed=2)
    uniform_TB = torch.rand(12, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    sampled = TorchEngine(model).sample(4, 12, [1], seed=5)
    tokens = torch.full((4, 1), 1)
    for uniform_B in uniform_TB:
        logits_BV = model(input_ids=tokens, use_cache=False).logits[:, -1].detach()
        tokens = torch.cat([tokens, draw(logits_BV, uniform_B)[:, None]], dim=1)
    assert torch.equal(sampled, tokens)


def test_a_row_goes_on_from_its_opening() -> None:
    model = make_model(seed=2)
    uniform_TB = torch.rand(6, 3, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    sampled = TorchEngine(model).sample(3, 6, [1, 40, 17], seed=7)
    tokens = torch.tensor([[1, 40, 17]] * 3)
    for uniform_B in uniform_TB:
        logits_BV = model(input_ids=tokens, use_cache=False).logits[:, -1].detach()
        tokens = torch.cat([tokens, draw(logits_BV, uniform_B)[:, None]], dim=1)
    assert torch.equal(sampled, tokens)


def test_same_seed_same_rows_other_seed_other_rows() -> None:
    model = make_model()
    sampler = TorchEngine(model)
    assert torch.equal(sampler.sample(3, 20, [0], seed=1), sampler.sample(3, 20, [0], seed=1))
    assert not torch.equal(sampler.sample(3, 20, [0], seed=1), sampler.sample(3, 20, [0], seed=2))


def test_eos_does_not_stop_a_row() -> None:
    model = make_model(seed=4)
    tokens = TorchEngine(model).sample(400, 30, [0], seed=0)
    ended = (tokens[:, 1:-1] == model.config.eos_token_id).any(dim=1)
    assert ended.any()
    assert tokens.shape == (400, 31)
    after = tokens[ended][:, -1]
    assert len(after.unique()) > 1


def test_rows_follow_from_the_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engine._MOST_ROWS, "cpu", 128)
    model = make_model()
    length, bf16 = 100, torch.bfloat16
    # Two layers of two key heads 8 wide; 259 words as drawn and three times in fp32; states 32 wide, twice.
    row = 2 * 2 * 2 * 8 * (1 + length) * 2 + 259 * (2 + 3 * 4) + 2 * 32 * length * 2
    copy = sum(parameter.numel() for parameter in model.parameters()) * (4 + 2)

    def rows(free: int) -> int:
        monkeypatch.setattr(engine, "free_bytes", lambda device: free)
        return TorchEngine.rows_that_fit(model, length, bf16)

    assert rows(2**40) == 128
    assert rows(copy + 2 * 5 * row) == 4
    assert rows(copy + 2 * 8 * row) == 8
    assert rows(copy + 2 * row) == 1
    with pytest.raises(ConfigError, match="one row of 100 tokens") as caught:
        rows(copy + 2 * row - 1)
    assert "shorter rows" in caught.value.fix
    with pytest.raises(ConfigError):
        sample_pool(model, make_tokenizer(), tmp_path / "pool", tokens=100, length=length, dtype=bf16)
    assert not (tmp_path / "pool").exists()


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_fit_whatever_a_cache_is_made_of(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = family_model(name)
    cache = {length: engine._cache_bytes(model, length, torch.float32) for length in (2, 50)}
    assert 0 < cache[2] <= cache[50] < 2**20
    assert (cache[2] == cache[50]) == (name in ("falcon_mamba", "mamba", "mamba2", "xlstm", "rwkv"))
    assert TorchEngine.rows_that_fit(model, 40, torch.float32) >= 1
