"""The mark of a base does not see adapters, and sees everything else."""

from __future__ import annotations

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model

from keeptune.models.modeling import fingerprint
from tests.helpers.models import make_model


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(r=4, target_modules="all-linear"),
        LoraConfig(r=4, target_modules="all-linear", use_dora=True),
        LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"]),
        IA3Config(target_modules=["k_proj", "v_proj"], feedforward_modules=[]),
    ],
)
@pytest.mark.parametrize("tie", [True, False])
def test_adapters_do_not_enter(config: LoraConfig | IA3Config, tie: bool) -> None:
    if tie and getattr(config, "modules_to_save", None):
        pytest.skip("a tied head cannot be saved apart")
    before = fingerprint(make_model(tie=tie))
    wrapped = get_peft_model(make_model(tie=tie), config)
    assert fingerprint(wrapped) == before
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter += 0.1
    assert fingerprint(wrapped) == before


def test_an_adapter_that_changes_the_base_enters() -> None:
    wrapped = get_peft_model(make_model(), LoraConfig(r=4, target_modules="all-linear", init_lora_weights="pissa"))
    assert fingerprint(wrapped) != fingerprint(make_model())
