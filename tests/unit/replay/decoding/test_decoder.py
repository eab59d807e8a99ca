"""Every decoder has the model's own logits; the fast one is taken for the models that it is right for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, GemmaConfig, GPT2Config, MistralConfig, Qwen2Config, Qwen3Config

from keeptune.replay.decoding.decoder import Decoder, ModuleDecoder, make_decoder
from keeptune.replay.decoding.llama import LlamaDecoder
from tests.helpers.models import make_model

SHAPE: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.15,
    "head_dim": 8,
}
FAMILY = {
    "mistral": MistralConfig(**SHAPE, sliding_window=None),
    "qwen2": Qwen2Config(**{key: value for key, value in SHAPE.items() if key != "head_dim"}),
    "qwen3": Qwen3Config(**{**SHAPE, "head_dim": 16}, tie_word_embeddings=True),
}
OTHERS = {
    "window": MistralConfig(**SHAPE, sliding_window=6),
    "gemma": GemmaConfig(**SHAPE),
    "gpt2": GPT2Config(vocab_size=259, n_embd=32, n_layer=2, n_head=4),
}


def random_model(config: Any) -> Any:
    """Every parameter random, those too that start at nought or one."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def decoded(decoder: Decoder, tokens_BP: Tensor) -> Tensor:
    decoder.begin(*tokens_BP.shape)
    with torch.inference_mode():
        return torch.stack([decoder.step(tokens_B1) for tokens_B1 in tokens_BP.split(1, dim=1)], dim=1)


def some_tokens(rows: int = 3, positions: int = 20) -> Tensor:
    return torch.randint(259, (rows, positions), generator=torch.Generator().manual_seed(7))


def own(model: Any, tokens_BP: Tensor) -> Tensor:
    return model(input_ids=tokens_BP, use_cache=False).logits.detach()


@pytest.mark.parametrize("name", ["llama", *FAMILY])
def test_the_written_out_decoder_has_the_logits_of_its_family(name: str) -> None:
    model = make_model(seed=5) if name == "llama" else random_model(FAMILY[name])
    tokens_BP = some_tokens()
    decoder = make_decoder(model, torch.float32, rows=3)
    assert isinstance(decoder, LlamaDecoder)
    torch.testing.assert_close(decoded(decoder, tokens_BP), own(model, tokens_BP), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(decoded(decoder, tokens_BP[:2, :5]), own(model, tokens_BP[:2, :5]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(OTHERS))
def test_other_models_are_decoded_by_their_own_modules(name: str) -> None:
    model, tokens_BP = random_model(OTHERS[name]), some_tokens()
    decoder = make_decoder(model, torch.float32, rows=3)
    assert isinstance(decoder, ModuleDecoder)
    torch.testing.assert_close(decoded(decoder, tokens_BP), own(model, tokens_BP), rtol=1e-4, atol=1e-4)
    packed = make_decoder(model, torch.bfloat16, rows=3)
    assert isinstance(packed, ModuleDecoder)
    own_BPV = own(model.to(torch.bfloat16), tokens_BP).float()
    assert (decoded(packed, tokens_BP).float() - own_BPV).norm() < 0.02 * own_BPV.norm()


@pytest.mark.parametrize("name", ["llama", *FAMILY])
def test_in_bfloat16_it_is_as_near_to_the_exact_logits_as_the_model_itself(name: str) -> None:
    model = make_model(seed=5, width=64) if name == "llama" else random_model(FAMILY[name])
    tokens_BP = some_tokens(positions=40)
    exact = own(model, tokens_BP)
    decoder = make_decoder(model, torch.bfloat16, rows=3)
    assert isinstance(decoder, LlamaDecoder)
    off = (decoded(decoder, tokens_BP).float() - exact).norm()
    assert off < 1.25 * (own(model.to(torch.bfloat16), tokens_BP).float() - exact).norm()


def test_a_model_that_does_more_than_its_family_keeps_its_own_logits() -> None:
    tokens_BP = some_tokens()
    hooked = make_model(seed=2)
    hooked.model.layers[1].mlp.register_forward_hook(lambda module, inputs, output: output * 1.1)
    adapted = get_peft_model(make_model(seed=2), LoraConfig(target_modules=["q_proj"], init_lora_weights=False)).eval()
    for model in (hooked, adapted):
        decoder = make_decoder(model, torch.float32, rows=3)
        assert isinstance(decoder, ModuleDecoder)
        torch.testing.assert_close(decoded(decoder, tokens_BP), own(model, tokens_BP), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_that_changes_nothing_yet_is_left_out(dtype: torch.dtype) -> None:
    model, tokens_BP = make_model(seed=2, width=64), some_tokens()
    bare = decoded(make_decoder(model, dtype, rows=3), tokens_BP)
    adapted = get_peft_model(model, LoraConfig(target_modules="all-linear"))
    layer = adapted.get_base_model().model.layers[0].self_attn.q_proj
    decoder = make_decoder(adapted, dtype, rows=3)
    assert isinstance(decoder, LlamaDecoder)
    assert torch.equal(decoded(decoder, tokens_BP), bare)
    assert adapted.get_base_model().model.layers[0].self_attn.q_proj is layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_happens_to_the_model_later_does_not_reach_the_copy(dtype: torch.dtype) -> None:
    model, tokens_BP = make_model(width=64), some_tokens()
    before = decoded(make_decoder(model, dtype, rows=3), tokens_BP)
    original = model.forward
    model.forward = lambda *args, **kwargs: original(*args, **kwargs)  # as a trainer patches it
    decoder = make_decoder(model, dtype, rows=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(decoded(decoder, tokens_BP), before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu() -> None:
    model, tokens_BP = make_model(seed=5).cuda(), some_tokens().cuda()
    decoder = make_decoder(model, torch.float32, rows=3)
    assert isinstance(decoder, LlamaDecoder)
    torch.testing.assert_close(decoded(decoder, tokens_BP), own(model, tokens_BP), rtol=1e-3, atol=1e-3)
