"""Quantized bases: what is stored identifies them, they train as their parent trains, and nothing is rounded unsaid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

from keeptune.errors import ConfigError, SourceError
from keeptune.models.loading import load_model
from keeptune.models.modeling import fingerprint, hidden_states
from keeptune.models.quantized import BASE_QUANTIZATION, describe, is_packed, loading_quantization, settle, stored_bytes
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.quantized import INPUT_BT, fingerprints, measured, needs_bitsandbytes, pool_of

Build = Callable[[], Any]
SETTINGS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "double": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "stored in bf16": {"load_in_4bit": True, "bnb_4bit_quant_storage": torch.bfloat16},
    "int8": {"load_in_8bit": True},
    "int8 without outliers": {"load_in_8bit": True, "llm_int8_threshold": 0.0},
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    make_model(tie=False, width=64).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def quantized(plain: Path, name: str, dtype: torch.dtype = torch.float32) -> Any:
    how = BitsAndBytesConfig(**SETTINGS[name])
    return AutoModelForCausalLM.from_pretrained(plain, quantization_config=how, dtype=dtype).eval()


@needs_bitsandbytes
@pytest.mark.parametrize("name", SETTINGS)
def test_the_fingerprint_is_that_of_the_stored_weights(plain: Path, tmp_path: Path, name: str) -> None:
    marks = fingerprints(lambda: quantized(plain, name))
    assert len(marks) == 1
    quantized(plain, name).save_pretrained(tmp_path)
    assert marks == {fingerprint(load_model(str(tmp_path)))}
    assert marks != {fingerprint(load_model(str(plain)))}


@needs_bitsandbytes
def test_each_quantization_has_its_own_fingerprint(plain: Path) -> None:
    marks = {name: fingerprint(quantized(plain, name)) for name in SETTINGS}
    # The storage dtype and the threshold are no part of the weights; the default type is fp4.
    assert marks["stored in bf16"] == marks["fp4"]
    assert marks["int8"] == marks["int8 without outliers"]
    assert len(set(marks.values())) == len(marks) - 2


@needs_bitsandbytes
@pytest.mark.parametrize(("name", "prepared"), [("double", True), ("int8", False)])
def test_training_is_exact(plain: Path, tmp_path: Path, name: str, prepared: bool) -> None:
    def load() -> Any:
        model = quantized(plain, name, torch.bfloat16 if prepared else torch.float32)
        return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False) if prepared else model

    result = measured(load, tmp_path)
    assert result["KL of step 0, adapter"] == result["KL of step 0, live"] == 0.0
    # LLM.int8() computes a row by the outliers of the rows beside it, so no stored prediction is its own in training.
    assert "outlier" in result["KL of step 0, hidden"] if name == "int8" else result["KL of step 0, hidden"] == 0.0
    assert result["λ = 0 against SFTTrainer"] == 0.0
    # Embeddings that were rounded to bfloat16 before they were prepared are loaded in float32.
    assert result["saved against reloaded"] == 0.0 or prepared


@needs_bitsandbytes
def test_a_forward_pass_before_training_costs_no_gradient(plain: Path) -> None:
    """bitsandbytes repacks 4-bit weights in the first evaluation on some CPUs, and no gradient passes them after."""
    model = quantized(plain, "nf4")
    with torch.no_grad():
        before = model(INPUT_BT).logits
    settle(model)
    embedded = model.get_input_embeddings()(INPUT_BT).detach().requires_grad_()
    layer = model.model.layers[0].mlp.down_proj
    layer(torch.ones(1, 1, layer.in_features, requires_grad=True) * embedded.sum()).sum().backward()
    assert embedded.grad is not None
    assert bool(embedded.grad.abs().sum() > 0)
    with torch.no_grad():
        assert torch.allclose(model(INPUT_BT).logits, before, atol=0.15), "bfloat16 products before, float32 now"


@needs_bitsandbytes
@pytest.mark.parametrize("name", ["double", "int8"])
def test_an_adapter_stays_beside_a_quantized_base(plain: Path, tmp_path: Path, name: str) -> None:
    quantized(plain, name).save_pretrained(tmp_path / "base")
    base = load_model(str(tmp_path / "base"))
    adapted = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        expected = hidden_states(adapted.eval(), INPUT_BT)
        loaded = load_model(str(tmp_path / "adapter"))
        assert torch.equal(hidden_states(loaded, INPUT_BT), expected)
    assert any(is_packed(parameter) for parameter in loaded.parameters())


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("load_in", [None, pytest.param("4bit", marks=needs_bitsandbytes)])
def test_an_adapter_with_a_larger_vocabulary_loads(tmp_path: Path, tie: bool, load_in: Any) -> None:
    make_model(tie=tie).save_pretrained(tmp_path / "base")
    model = load_model(str(tmp_path / "base"), load_in=load_in)
    model.resize_token_embeddings(264)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    if (how := loading_quantization(adapted)) is not None:
        (tmp_path / "adapter" / BASE_QUANTIZATION).write_text(json.dumps(how))
    with torch.no_grad():
        loaded = load_model(str(tmp_path / "adapter"))(INPUT_BT).logits
        assert torch.allclose(loaded, adapted.eval()(INPUT_BT).logits, atol=1e-4)


def test_an_adapter_that_lost_the_heads_new_rows_is_refused(tmp_path: Path) -> None:
    make_model(tie=False).save_pretrained(tmp_path / "base")
    model = load_model(str(tmp_path / "base"))
    model.resize_token_embeddings(264)
    get_peft_model(model, LoraConfig(r=4, target_modules=["embed_tokens"])).save_pretrained(tmp_path / "adapter")
    with pytest.raises(SourceError, match="trained on 264 tokens and its base has 259"):
        load_model(str(tmp_path / "adapter"))


@needs_bitsandbytes
def test_stored_predictions_of_llm_int8_are_refused(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="depend on the other rows of the batch"):
        pool_of(lambda: quantized(plain, "int8"), tmp_path / "pool")
    assert pool_of(lambda: quantized(plain, "int8"), tmp_path / "pool", predictions="none").rows == 4
    assert pool_of(lambda: quantized(plain, "int8 without outliers"), tmp_path / "own").rows == 4


@needs_bitsandbytes
def test_a_quantized_head_is_refused_in_words(plain: Path, tmp_path: Path) -> None:
    how = BitsAndBytesConfig(load_in_4bit=True, llm_int8_skip_modules=["model.embed_tokens"])
    model = AutoModelForCausalLM.from_pretrained(plain, quantization_config=how, dtype=torch.float32)
    with pytest.raises(ConfigError, match="the output layer is quantized"):
        pool_of(lambda: model, tmp_path / "pool")


@needs_bitsandbytes
def test_a_model_that_was_quantized_already_is_not_quantized_again(plain: Path, tmp_path: Path) -> None:
    quantized(plain, "int8").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="is quantized already"):
        load_model(str(tmp_path), load_in="4bit")


@needs_bitsandbytes
def test_what_is_said_of_a_model(plain: Path) -> None:
    dense = load_model(str(plain))
    assert describe(dense) is None
    small = load_model(str(plain), load_in="4bit")
    assert describe(small) == "bitsandbytes 4-bit (nf4)"
    linear = sum(p.numel() for name, p in dense.named_parameters() if "proj" in name)
    assert stored_bytes(dense) == 4 * sum(p.numel() for p in dense.parameters())
    # Four bits for a weight, and a scale for 64 of them.
    assert stored_bytes(small) == pytest.approx(stored_bytes(dense) - linear * (4 - 0.5 - 2 / 64), rel=0.01)
    settle(dense)
    assert fingerprint(dense) == fingerprint(load_model(str(plain)))


@pytest.mark.parametrize("method", sorted(set(AUTO_QUANTIZER_MAPPING) - {"bitsandbytes_4bit", "bitsandbytes_8bit"}))
def test_a_checkpoint_whose_method_is_not_here_is_refused_in_words(plain: Path, tmp_path: Path, method: str) -> None:
    """The weights are plain, so that no method finds its own. What a CPU dequantizes is read as it is."""
    for file in plain.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((plain / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method}
    (tmp_path / "config.json").write_text(json.dumps(config))
    if method in ("fp8", "gguf", "mxfp4", "mxfp8"):
        assert fingerprint(load_model(str(tmp_path))) == fingerprint(load_model(str(plain)))
        return
    with pytest.raises(SourceError, match=f"is quantized with {method} and cannot be loaded here: "):
        load_model(str(tmp_path))
