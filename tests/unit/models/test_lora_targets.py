"""LoRA on all linear layers of any architecture: what PEFT cannot wrap, or text never meets, is left out and named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model

from keeptune.models.loading import load_model
from keeptune.models.lora_targets import all_linear
from tests.families.catalog import FAMILIES
from tests.families.harness import make_base
from tests.helpers.models import make_model

# family → patterns of the layers left out, and of one that is kept
CASES: dict[str, tuple[list[str], str]] = {
    "mamba": ([r"mixer\.dt_proj", r"mixer\.out_proj"], r"mixer\.in_proj"),
    "falcon_h1": ([r"mamba\.out_proj"], r"self_attn\.q_proj"),
    "nemotron_h": ([r"mixer\.out_proj"], r"mixer\.in_proj"),
    "longcat_flash": ([r"router\.classifier"], r"o_proj"),
    "llama4_text": ([r"router"], r"q_proj"),
    "zamba": ([r"shared_transf"], r"mamba\.in_proj"),
    "qwen2_vl": ([r"visual\."], r"language_model\.layers\.0\.self_attn\.q_proj"),
    "llama4": ([r"^vision_model\.", r"^multi_modal_projector", r"router"], r"q_proj"),
    "gemma3": ([r"vision_tower\."], r"language_model\.layers\.0\.self_attn\.q_proj"),
    "deepseek_v4": ([r"o_a_proj"], r"q_a_proj"),
    "bart, decoder": ([r"encoder_attn\."], r"self_attn\.q_proj"),
}

# Experts that no token of the test chose, and what only longer rows come to.
LATER = r"\.experts\.|\.compressor\."


@pytest.mark.parametrize("name", CASES)
def test_what_lora_leaves_out_is_named_and_the_rest_is_trained(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left_out, kept = CASES[name]
    model = load_model(str(make_base(FAMILIES[name], tmp_path)))
    adapted = get_peft_model(model, all_linear(model, r=2, task_type="CAUSAL_LM"))
    told = capsys.readouterr().err
    wrapped = {name.partition(".lora_A")[0].removeprefix("base_model.model.") for name in weights(adapted)}
    for pattern in left_out:
        assert not any(re.search(pattern, layer) for layer in wrapped), pattern
        assert re.search(pattern.strip("^").replace(r"\.", "[.]"), told), told
    assert any(re.search(kept, layer) for layer in wrapped)
    tokens_BT = torch.arange(3, 27)[None]
    adapted.train()(input_ids=tokens_BT).logits.logsumexp(-1).sum().backward()
    idle = [name for name, weight in weights(adapted).items() if weight.grad is None and not re.search(LATER, name)]
    assert idle == []


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if "lora_A" in name}


def test_nothing_is_left_out_of_a_plain_model_nor_told(capsys: pytest.CaptureFixture[str]) -> None:
    config = all_linear(make_model(), r=2)
    assert (config.target_modules, config.exclude_modules) == ("all-linear", None)
    assert "LoRA" not in capsys.readouterr().err
