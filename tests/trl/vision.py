"""Local stand-ins for the tiny vision-language models of TRL's own tests, as TRL's own scripts cut them down.

Processors are the real ones, with a tokenizer of bytes. Those of Qwen and Gemma 4 read videos too and need torchvision.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma4AudioFeatureExtractor,
    Gemma4ImageProcessor,
    Gemma4Processor,
    Gemma4VideoProcessor,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from tests.trl.standins import BASE, TEMPLATES, make_bytes

_VISION_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_CLIP: dict[str, Any] = {
    **{key: BASE[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")},
    "model_type": "clip_vision_model",
    "image_size": 32,
    "patch_size": 16,
    "projection_dim": 16,
}
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_interleaved": True, "mrope_section": [2, 1, 1]}
_TOWER = {"hidden_size": 16, "depth": 2, "num_heads": 4}
_TOWER_3 = {**_TOWER, "intermediate_size": 32, "out_hidden_size": 16, "num_position_embeddings": 16}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
_EXPERTS |= {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}
# Name: model type, processor, template of TRL's, fields of the text model, of the vision tower, pixels of a patch.
_QWEN: dict[str, tuple[str, type[ProcessorMixin], str, dict[str, Any], dict[str, Any], int]] = {
    "tiny-Qwen2VLForConditionalGeneration": (
        "qwen2_vl",
        Qwen2VLProcessor,
        "qwen2_5_vl",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1]}},
        {**_TOWER, "embed_dim": 64},
        14,
    ),
    "tiny-Qwen2_5_VLForConditionalGeneration": (
        "qwen2_5_vl",
        Qwen2_5_VLProcessor,
        "qwen2_5_vl",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1]}},
        {**_TOWER, "intermediate_size": 32, "out_hidden_size": 16, "fullatt_block_indexes": [1]},
        14,
    ),
    "tiny-Qwen3VLForConditionalGeneration": (
        "qwen3_vl",
        Qwen3VLProcessor,
        "qwen3_vl",
        {"head_dim": 8, "rope_parameters": _MROPE},
        {**_TOWER_3, "deepstack_visual_indexes": [1]},
        16,
    ),
    "tiny-Qwen3_5ForConditionalGeneration-NoThink": (
        "qwen3_5",
        Qwen3VLProcessor,
        "qwen3_5_nothink",
        {"head_dim": 32, "rope_parameters": {**_MROPE, "partial_rotary_factor": 0.25}, **_LINEAR},
        _TOWER_3,
        16,
    ),
    "tiny-Qwen3_5MoeForConditionalGeneration-3.6": (
        "qwen3_5_moe",
        Qwen3VLProcessor,
        "qwen3_6",
        {"head_dim": 32, "rope_parameters": {**_MROPE, "partial_rotary_factor": 0.25}, **_LINEAR, **_EXPERTS},
        _TOWER_3,
        16,
    ),
}


def make_vision(home: Path) -> None:
    """Write every vision-language model."""
    _save_llava(home / "tiny-LlavaForConditionalGeneration")
    _save_llava_next(home / "tiny-LlavaNextForConditionalGeneration")
    _save_gemma3(home / "tiny-Gemma3ForConditionalGeneration")
    _save_gemma4(home / "tiny-Gemma4ForConditionalGeneration")
    for name, settings in _QWEN.items():
        _save_qwen(home / name, *settings)


def _save(folder: Path, config: Any, processor: ProcessorMixin) -> None:
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    processor.save_pretrained(folder)


def _template(name: str) -> str:
    return (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


def _text(kind: str, tokenizer: PreTrainedTokenizerFast, **more: Any) -> dict[str, Any]:
    return {"model_type": kind, **BASE, "vocab_size": len(tokenizer), **more}


def _save_llava(folder: Path) -> None:
    tokenizer = make_bytes("qwen2_5", image_token="<image>")
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_VISION_TEMPLATE,
    )
    image = tokenizer.convert_tokens_to_ids("<image>")
    text = _text("llama", tokenizer)
    _save(
        folder,
        AutoConfig.for_model("llava", text_config=text, vision_config=_CLIP, image_token_index=image),
        processor,
    )


def _save_llava_next(folder: Path) -> None:
    tokenizer = make_bytes("qwen2_5", image_token="<image>")
    grid = [[32, 64], [64, 32], [64, 64]]
    images = LlavaNextImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=grid
    )
    processor = LlavaNextProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_template("llava_next"),
    )
    given = {"image_token_index": tokenizer.convert_tokens_to_ids("<image>"), "image_grid_pinpoints": grid}
    text = _text("mistral", tokenizer)
    _save(folder, AutoConfig.for_model("llava_next", text_config=text, vision_config=_CLIP, **given), processor)


def _save_gemma3(folder: Path) -> None:
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = make_bytes("gemma3", **named)
    images = Gemma3ImageProcessor(size={"height": 32, "width": 32})
    processor = Gemma3Processor(
        image_processor=images, tokenizer=tokenizer, image_seq_length=4, chat_template=_template("gemma3")
    )
    vision = {**_CLIP, "model_type": "siglip_vision_model", "vision_use_head": False}
    ids = {
        f"{name}_token_index": tokenizer.convert_tokens_to_ids(named[f"{name}_token"])
        for name in ("image", "boi", "eoi")
    }
    text = _text("gemma3_text", tokenizer, head_dim=8)
    config = AutoConfig.for_model("gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=4, **ids)
    _save(folder, config, processor)


def _save_gemma4(folder: Path) -> None:
    """With 70 tokens to an image, the fewest that its processor takes: 630 patches."""
    named = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>"}
    named |= {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}
    tokenizer = make_bytes("gemma4", **named)
    processor = Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessor(max_soft_tokens=70),
        tokenizer=tokenizer,
        video_processor=Gemma4VideoProcessor(max_soft_tokens=70),
        chat_template=_template("gemma4"),
        image_seq_length=70,
    )
    text = _text(
        "gemma4_text",
        tokenizer,
        head_dim=8,
        global_head_dim=8,
        layer_types=["sliding_attention", "full_attention"],
        vocab_size_per_layer_input=len(tokenizer),
        hidden_size_per_layer_input=16,
    )
    vision = {key: BASE[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers")}
    vision |= {"model_type": "gemma4_vision", "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    vision |= {"position_embedding_size": 630, "default_output_length": 70}
    ids = {f"{name[:-6]}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in named.items()}
    ids["eoa_token_index"] = ids.pop("eoa_token_id")
    ids["video_token_id"] = tokenizer.convert_tokens_to_ids("<|video|>")
    config = AutoConfig.for_model("gemma4", text_config=text, vision_config=vision, audio_config=None, **ids)
    _save(folder, config, processor)


def _save_qwen(
    folder: Path,
    kind: str,
    make_processor: Any,
    template: str,
    text: dict[str, Any],
    vision: dict[str, Any],
    patch: int,
) -> None:
    """An image takes a few tokens: its least size is that of one merged patch."""
    named = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    named |= {"vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>"}
    tokenizer = make_bytes(template, **named)
    size = {"shortest_edge": (2 * patch) ** 2, "longest_edge": (4 * patch) ** 2}
    videos = Qwen2VLVideoProcessor if patch == 14 else Qwen3VLVideoProcessor
    processor = make_processor(
        image_processor=Qwen2VLImageProcessor(patch_size=patch, size=size),
        tokenizer=tokenizer,
        video_processor=videos(patch_size=patch),
        chat_template=_template(template),
    )
    ids = {
        "image_token_id": tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        "video_token_id": tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        "vision_start_token_id": tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        "vision_end_token_id": tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    }
    fields = {**_text(f"{kind}_text", tokenizer), **text}
    tower = {**vision, "patch_size": patch}
    _save(folder, AutoConfig.for_model(kind, text_config=fields, vision_config=tower, **ids), processor)
