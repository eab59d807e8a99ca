"""The attention that suits the row length changes no prediction and is not saved with the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from keeptune.models.modeling import select_attention
from tests.helpers.models import make_model


def test_short_rows_attend_through_plain_products_with_equal_logits(tmp_path: Path) -> None:
    plain, suited = make_model(), make_model()
    select_attention(suited, 256)
    assert suited.config._attn_implementation == "eager"
    input_BT = torch.arange(40).view(2, 20)
    torch.testing.assert_close(suited(input_ids=input_BT).logits, plain(input_ids=input_BT).logits)
    suited.save_pretrained(tmp_path)
    assert "eager" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize(("implementation", "longest"), [("sdpa", 257), ("flex_attention", 128)])
def test_long_rows_and_chosen_attention_are_left_alone(implementation: str, longest: int) -> None:
    model = make_model()
    model.set_attn_implementation(implementation)
    select_attention(model, longest)
    assert model.config._attn_implementation == implementation
