"""Local stand-ins for the tiny models and data sets that TRL's own tests fetch from the hub.

TRL's tests name them `trl-internal-testing/NAME`. In a working directory that has such folders, transformers and
datasets read these instead of the hub: nothing is patched. Models are random, with the vocabulary of bytes and TRL's
own chat templates, so that tests which look for a known template find it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import trl
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    Gemma3ImageProcessor,
    Gemma3Processor,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)

from tests.helpers.models import make_tokenizer

_TEMPLATES = Path(trl.__file__).parent / "chat_templates"
_VISION_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_BASE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
_VISION = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
# Name: model type, fields, chat template of TRL's (None: none).
MODELS: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "tiny-Qwen2ForCausalLM-2.5": ("qwen2", {}, "qwen2_5"),
    "tiny-Qwen3ForCausalLM": ("qwen3", {"head_dim": 8}, "qwen3"),
    "tiny-Qwen3MoeForCausalLM": (
        "qwen3_moe",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8},
        "qwen3",
    ),
    "tiny-CohereForCausalLM": ("cohere", {}, "cohere"),
    "tiny-Cohere2ForCausalLM": ("cohere2", {}, "cohere2"),
    "tiny-GptOssForCausalLM": ("gpt_oss", {**_MOE, "head_dim": 8}, "gptoss"),
    "tiny-GPTNeoXForCausalLM": ("gpt_neox", {}, None),
    "tiny-GemmaForCausalLM": ("gemma", {"head_dim": 8}, "gemma"),
    "tiny-Gemma2ForCausalLM": ("gemma2", {"head_dim": 8}, "gemma"),
    "tiny-LlamaForCausalLM-3": ("llama", {}, "llama3"),
    "tiny-LlamaForCausalLM-3.1": ("llama", {}, "llama3_1"),
    "tiny-LlamaForCausalLM-3.2": ("llama", {}, "llama3_2"),
    "tiny-MistralForCausalLM-0.1": ("mistral", {}, None),
    "tiny-MistralForCausalLM-0.2": ("mistral", {}, None),
    "tiny-Phi3ForCausalLM": ("phi3", {}, "phi3"),
    "tiny-Olmo3ForCausalLM": ("olmo3", {}, "qwen2_5"),
    "tiny-Lfm2ForCausalLM": ("lfm2", {"layer_types": ["conv", "full_attention"]}, "lfm2"),
    "tiny-Lfm2ForCausalLM-2.5": ("lfm2", {"layer_types": ["conv", "full_attention"]}, "lfm2_2_5"),
    "tiny-Glm4MoeForCausalLM": (
        "glm4_moe",
        {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1},
        "glm4moe",
    ),
}


def make_all(folder: Path) -> None:
    """Write every stand-in below a folder, unless they are there."""
    home = folder / "trl-internal-testing"
    if (folder / "made").is_file():
        return
    for name, (kind, fields, template) in MODELS.items():
        _save_text_model(home / name, kind, fields, template)
    _save_llava(home / "tiny-LlavaForConditionalGeneration")
    _save_llava_next(home / "tiny-LlavaNextForConditionalGeneration")
    _save_gemma3(home / "tiny-Gemma3ForConditionalGeneration")
    make_data(folder)
    (folder / "made").write_text("", encoding="utf-8")


def _tokenizer(template: str | None, **named: str) -> PreTrainedTokenizerFast:
    """Bytes, with special tokens that processors ask for by name."""
    plain = make_tokenizer(None if template is None else (_TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8"))
    if not named:
        return plain
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer,
        bos_token=plain.bos_token,
        eos_token=plain.eos_token,
        pad_token=plain.pad_token,
        unk_token=plain.unk_token,
        extra_special_tokens=named,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(named.values())})
    return tokenizer


def _save_text_model(folder: Path, kind: str, fields: dict[str, Any], template: str | None) -> None:
    torch.manual_seed(0)
    tokenizer = _tokenizer(template)
    given = {**_BASE, "vocab_size": len(tokenizer), **fields}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **given)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _save_vision(folder: Path, config: Any, processor: ProcessorMixin) -> None:
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    processor.save_pretrained(folder)


def _clip() -> dict[str, Any]:
    vision = {
        key: _BASE[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    }
    return {"model_type": "clip_vision_model", **vision, "image_size": 32, "patch_size": 16, "projection_dim": 16}


def _save_llava(folder: Path) -> None:
    tokenizer = _tokenizer("qwen2_5", image_token="<image>")
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=_VISION_TEMPLATE.replace("IMAGE", "<image>"),
    )
    text = {"model_type": "llama", **_BASE, "vocab_size": len(tokenizer)}
    image = tokenizer.convert_tokens_to_ids("<image>")
    config = AutoConfig.for_model("llava", text_config=text, vision_config=_clip(), image_token_index=image)
    _save_vision(folder, config, processor)


def _save_llava_next(folder: Path) -> None:
    tokenizer = _tokenizer("qwen2_5", image_token="<image>")
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
        chat_template=(_TEMPLATES / "llava_next.jinja").read_text(encoding="utf-8"),
    )
    text = {"model_type": "mistral", **_BASE, "vocab_size": len(tokenizer)}
    given = {"image_token_index": tokenizer.convert_tokens_to_ids("<image>"), "image_grid_pinpoints": grid}
    _save_vision(
        folder, AutoConfig.for_model("llava_next", text_config=text, vision_config=_clip(), **given), processor
    )


def _save_gemma3(folder: Path) -> None:
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = _tokenizer("gemma3", **named)
    images = Gemma3ImageProcessor(size={"height": 32, "width": 32})
    template = (_TEMPLATES / "gemma3.jinja").read_text(encoding="utf-8")
    processor = Gemma3Processor(image_processor=images, tokenizer=tokenizer, image_seq_length=4, chat_template=template)
    vision = {**_clip(), "model_type": "siglip_vision_model", "vision_use_head": False}
    text = {"model_type": "gemma3_text", **_BASE, "vocab_size": len(tokenizer), "head_dim": 8}
    ids = {
        "image_token_index": tokenizer.convert_tokens_to_ids("<image_soft_token>"),
        "boi_token_index": tokenizer.convert_tokens_to_ids("<start_of_image>"),
        "eoi_token_index": tokenizer.convert_tokens_to_ids("<end_of_image>"),
    }
    config = AutoConfig.for_model("gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=4, **ids)
    _save_vision(folder, config, processor)


def make_data(folder: Path) -> None:
    """The data sets, a folder each, with a configuration for each layout."""
    pairs = [(f"What is {number} plus {number}?", f"It is {2 * number}, of course.") for number in range(17)]
    user = [[{"role": "user", "content": question}] for question, _ in pairs]
    assistant = [[{"role": "assistant", "content": answer}] for _, answer in pairs]
    chats = [{"messages": asked + told} for asked, told in zip(user, assistant, strict=True)]
    completions = [{"prompt": asked, "completion": told} for asked, told in zip(user, assistant, strict=True)]
    _save_data(
        folder / "trl-internal-testing" / "zen",
        {
            "standard_language_modeling": [{"text": f"{question} {answer}"} for question, answer in pairs],
            "standard_prompt_completion": [
                {"prompt": question, "completion": f" {answer}"} for question, answer in pairs
            ],
            "standard_implicit_prompt_preference": [{"chosen": q + a, "rejected": q + "No."} for q, a in pairs],
            "conversational_language_modeling": chats,
            "conversational_prompt_completion": completions,
        },
    )
    thinking = [{**told[0], "thinking": "Add the two."} for told in assistant]
    thoughts = list(zip(user, thinking, strict=True))
    harmony = {"reasoning_effort": "low", "model_identity": "You are a calculator."}
    _save_data(
        folder / "trl-internal-testing" / "harmony",
        {
            "language_modeling": [{"messages": [*u, t], **harmony} for u, t in thoughts],
            "prompt_completion": [
                {"prompt": u, "completion": [t], **harmony} for u, t in zip(user, thinking, strict=True)
            ],
        },
    )
    _save_data(folder / "trl-internal-testing" / "toolcall", {"language_modeling": [_tool_call(n) for n in range(8)]})
    _save_data(folder / "trl-internal-testing" / "dolly-chatml-sft", {"default": chats})
    _save_data(folder / "stanfordnlp" / "imdb", {"plain_text": [{"text": f"{q} {a}"} for q, a in pairs * 10]})
    _save_images(folder / "trl-internal-testing" / "zen-image", user, assistant)


def _tool_call(number: int) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "double", "description": "Doubles.", "parameters": parameters}}
    call = {"type": "function", "function": {"name": "double", "arguments": {"a": number}}}
    messages = [
        {"role": "user", "content": f"Double {number}."},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "name": "double", "content": str(2 * number)},
        {"role": "assistant", "content": f"It is {2 * number}."},
    ]
    return {"messages": messages, "tools": json.dumps([tool])}


def _save_data(folder: Path, layouts: dict[str, list[dict[str, Any]]]) -> None:
    """jsonl files and a card that names them, train and test."""
    folder.mkdir(parents=True, exist_ok=True)
    card = ["---", "configs:"]
    for layout, rows in layouts.items():
        card += [f"- config_name: {layout}", "  data_files:"]
        for split, part in {"train": rows[2:], "test": rows[:2]}.items():
            file = f"{layout}-{split}.jsonl"
            card += [f"  - split: {split}", f"    path: {file}"]
            (folder / file).write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    (folder / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")


def _save_images(folder: Path, user: list[Any], assistant: list[Any]) -> None:
    """Chats with a picture each, as parquet."""
    from datasets import Dataset, Features, List, Value  # noqa: PLC0415
    from datasets import Image as ImageFeature  # noqa: PLC0415

    shades = [[Image.new("RGB", (40, 30), (8 * index, 90, 200 - 8 * index))] for index in range(len(user))]
    message = List({"role": Value("string"), "content": Value("string")})
    layouts = {
        "conversational_language_modeling": {"messages": [u + a for u, a in zip(user, assistant, strict=True)]},
        "conversational_prompt_completion": {"prompt": user, "completion": assistant},
    }
    folder.mkdir(parents=True, exist_ok=True)
    card = ["---", "configs:"]
    for layout, columns in layouts.items():
        features = Features(dict.fromkeys(columns, message) | {"images": List(ImageFeature())})
        file = f"{layout}-train.parquet"
        Dataset.from_dict({**columns, "images": shades}, features=features).to_parquet(folder / file)
        card += [f"- config_name: {layout}", "  data_files:", "  - split: train", f"    path: {file}"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]), encoding="utf-8")
