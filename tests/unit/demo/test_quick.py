"""The quick demo: its small base reads English and code, and it takes no setting that it sets itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from keeptune.data.documents import load_documents
from keeptune.demo.plan import DemoPlan
from keeptune.demo.quick import QuickPlan, make_base
from keeptune.errors import ConfigError
from keeptune.models.loading import load_model, load_tokenizer


def test_the_base_is_a_folder_like_any_other(tmp_path: Path) -> None:
    make_base(tmp_path / "base", seed=1, steps=2)
    model, tokenizer = load_model(str(tmp_path / "base")), load_tokenizer(str(tmp_path / "base"))
    assert 4e5 < sum(weight.numel() for weight in model.parameters()) < 6e5
    assert tokenizer.convert_tokens_to_ids("<|endoftext|>") == model.config.bos_token_id
    code = "async def gather(*futures):\n\treturn {'λ': futures}\n"
    assert tokenizer.decode(tokenizer(code)["input_ids"]) == code


def test_its_data_come_with_python() -> None:
    plan = QuickPlan.of(DemoPlan())
    assert (plan.out, plan.model) == ("demo-quick", "demo-quick/base")
    assert len(load_documents(plan.data)) > 20
    assert QuickPlan.of(DemoPlan(out="mine", seed=3)) == replace(plan, out="mine", model="mine/base", seed=3)


@pytest.mark.parametrize("other", [{"model": "org/model"}, {"steps": 8}, {"lambda_": 1.0}, {"skip_bad_rows": True}])
def test_other_settings_are_refused_by_name(other: dict[str, object]) -> None:
    name = next(iter(other)).rstrip("_")
    with pytest.raises(ConfigError, match=f"--quick sets {name} itself"):
        QuickPlan.of(DemoPlan(**other))  # type: ignore[arg-type]
