"""Tiny checkpoints of each quantization: by transformers while loading, or packed here where it only reads them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GptOssConfig, GptOssForCausalLM

Weights = dict[str, Tensor]
_GROUP = 32


def on_loading(plain: Path, folder: Path, config: Any) -> None:
    """Quantize while loading and save."""
    model = AutoModelForCausalLM.from_pretrained(plain, quantization_config=config, dtype=torch.float32)
    model.save_pretrained(folder)


def torchao_config(name: str, **settings: Any) -> Any:
    """A torchao configuration by name."""
    return transformers.TorchAoConfig(getattr(import_module("torchao.quantization"), name)(**settings))


def packed(plain: Path, folder: Path, settings: dict[str, Any], pack: Callable[[str, Tensor], Weights]) -> None:
    """The plain checkpoint with every projection replaced by the tensors of `pack`."""
    shutil.copytree(plain, folder, dirs_exist_ok=True)
    weights: Weights = {}
    for name, value in load_file(plain / "model.safetensors").items():
        weights |= pack(name.removesuffix(".weight"), value) if "proj" in name else {name: value}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((plain / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))


def _four_bits(value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes [in, out], zero points and scales [groups, out] of an affine 4-bit quantization."""
    out_features, in_features = value.shape
    groups = value.view(out_features, -1, _GROUP)
    scale = (groups.amax(-1) - groups.amin(-1)).clamp(min=1e-5) / 15
    zero = (-groups.amin(-1) / scale).round().clamp(0, 15)
    codes = ((groups / scale[..., None]).round() + zero[..., None]).clamp(0, 15).view(out_features, in_features)
    return codes.int().T.contiguous(), zero.int().T.contiguous(), scale.T.contiguous().half()


def gptq(name: str, value: Tensor) -> Weights:
    """Eight codes of consecutive rows in an int32; zero points minus one."""
    codes, zero, scale = _four_bits(value)
    packed_codes = torch.stack([codes[i::8] << 4 * i for i in range(8)]).sum(0).int()
    packed_zero = torch.stack([((zero - 1) & 15)[:, i::8] << 4 * i for i in range(8)]).sum(0).int()
    index = (torch.arange(len(codes)) // _GROUP).int()
    parts = {"qweight": packed_codes, "qzeros": packed_zero, "scales": scale, "g_idx": index}
    return {f"{name}.{part}": tensor for part, tensor in parts.items()}


def awq(name: str, value: Tensor) -> Weights:
    """Eight codes of a row in an int32, in AWQ's order."""
    codes, zero, scale = _four_bits(value)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    packed_codes, packed_zero = (
        torch.stack([t[:, column::8] << 4 * i for i, column in enumerate(order)]).sum(0).int() for t in (codes, zero)
    )
    return {f"{name}.qweight": packed_codes, f"{name}.qzeros": packed_zero, f"{name}.scales": scale}


def blockwise_float8(name: str, value: Tensor) -> Weights:
    """DeepSeek's layout: a scale for each block of 32 × 32 values."""
    rows, columns = value.shape
    blocks = value.view(rows // _GROUP, _GROUP, columns // _GROUP, _GROUP)
    scale = blocks.abs().amax((1, 3)) / 448
    codes = (blocks / scale[:, None, :, None]).view(rows, columns).to(torch.float8_e4m3fn)
    return {f"{name}.weight": codes, f"{name}.weight_scale_inv": scale}


def channel_float8(name: str, value: Tensor) -> Weights:
    """compressed-tensors' layout: a scale for each output."""
    scale = value.abs().amax(1, keepdim=True) / 448
    return {f"{name}.weight": (value / scale).to(torch.float8_e4m3fn), f"{name}.weight_scale": scale}


def ternary(name: str, value: Tensor) -> Weights:
    """BitNet's layout: four values of −1, 0, 1 in a byte."""
    scale = 1 / value.abs().mean()
    codes = ((value * scale).round().clamp(-1, 1) + 1).to(torch.uint8)
    quarter = len(codes) // 4
    byte = torch.stack([codes[i * quarter : (i + 1) * quarter] << 2 * i for i in range(4)]).sum(0).to(torch.uint8)
    return {f"{name}.weight": byte, f"{name}.weight_scale": scale.reshape(1).bfloat16()}


def gpt_oss(plain: Path, folder: Path) -> None:
    """gpt-oss with its experts in MXFP4: two values of four bits in a byte, one exponent for 32 of them."""
    torch.manual_seed(0)
    config = GptOssConfig(
        vocab_size=259, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, num_local_experts=2, num_experts_per_tok=1, max_position_embeddings=256,
        sliding_window=32, layer_types=["sliding_attention", "full_attention"], initializer_range=0.15,
    )  # fmt: skip
    shutil.copytree(plain, folder, dirs_exist_ok=True)
    GptOssForCausalLM(config).save_pretrained(folder)
    weights = {}
    for name, value in load_file(folder / "model.safetensors").items():
        if name.endswith(("gate_up_proj", "down_proj")):
            experts, columns, rows = value.shape
            shape = (experts, rows, columns // 32)
            weights[f"{name}_blocks"] = torch.randint(0, 256, (*shape, 16), dtype=torch.uint8)
            weights[f"{name}_scales"] = torch.full(shape, 123, dtype=torch.uint8)
        else:
            weights[name] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    written = json.loads((folder / "config.json").read_text())
    written["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (folder / "config.json").write_text(json.dumps(written))


def _compressed(kind: str, format_: str) -> dict[str, Any]:
    weights = {"num_bits": 8, "type": kind, "symmetric": True, "strategy": "channel", "dynamic": False}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    return {
        "quant_method": "compressed-tensors", "format": format_, "quantization_status": "compressed",
        "ignore": ["lm_head"], "config_groups": {"group_0": group},
    }  # fmt: skip


def _bitsandbytes(**settings: Any) -> Callable[[Path, Path], None]:
    return lambda plain, folder: on_loading(plain, folder, BitsAndBytesConfig(**settings))


def _torchao(name: str, **settings: Any) -> Callable[[Path, Path], None]:
    def write(plain: Path, folder: Path) -> None:
        config = torchao_config(name, **settings)
        # transformers hides torchao's own words where it cannot.
        import_module("torchao.quantization").quantize_(torch.nn.Sequential(torch.nn.Linear(64, 64)), config.quant_type)
        on_loading(plain, folder, config)

    return write


_GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": _GROUP, "desc_act": False, "sym": False}
_AWQ = {"quant_method": "awq", "bits": 4, "group_size": _GROUP, "zero_point": True, "version": "gemm"}
_FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [_GROUP, _GROUP], "fmt": "e4m3"}
_BITNET = {"quant_method": "bitnet", "linear_class": "bitlinear", "modules_to_not_convert": ["lm_head"]}

# Name in the table → (quant_method of transformers, what writes a checkpoint of it from the plain one).
CHECKPOINTS: dict[str, tuple[str, Callable[[Path, Path], None]]] = {
    "bitsandbytes NF4": ("bitsandbytes_4bit", _bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="nf4")),
    "bitsandbytes FP4": ("bitsandbytes_4bit", _bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="fp4")),
    "bitsandbytes NF4, double quantization": (
        "bitsandbytes_4bit",
        _bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    ),
    "bitsandbytes LLM.int8()": ("bitsandbytes_8bit", _bitsandbytes(load_in_8bit=True)),
    "bitsandbytes int8, threshold 0": ("bitsandbytes_8bit", _bitsandbytes(load_in_8bit=True, llm_int8_threshold=0.0)),
    "torchao int8 weights": ("torchao", _torchao("Int8WeightOnlyConfig")),
    "torchao int8 weights and activations": ("torchao", _torchao("Int8DynamicActivationInt8WeightConfig")),
    "torchao float8 weights": ("torchao", _torchao("Float8WeightOnlyConfig")),
    "torchao int4 weights": ("torchao", _torchao("Int4WeightOnlyConfig", group_size=_GROUP)),
    "GPTQ 4-bit": ("gptq", lambda plain, folder: packed(plain, folder, _GPTQ, gptq)),
    "AWQ 4-bit": ("awq", lambda plain, folder: packed(plain, folder, _AWQ, awq)),
    "FP8, blockwise": ("fp8", lambda plain, folder: packed(plain, folder, _FP8, blockwise_float8)),
    "compressed-tensors FP8": (
        "compressed-tensors",
        lambda plain, folder: packed(plain, folder, _compressed("float", "float-quantized"), channel_float8),
    ),
    "MXFP4 (gpt-oss)": ("mxfp4", gpt_oss),
    "quanto": ("quanto", lambda plain, folder: on_loading(plain, folder, transformers.QuantoConfig(weights="int8"))),
    "HQQ": ("hqq", lambda plain, folder: on_loading(plain, folder, transformers.HqqConfig(nbits=4, group_size=64))),
    "BitNet": ("bitnet", lambda plain, folder: packed(plain, folder, _BITNET, ternary)),
}
