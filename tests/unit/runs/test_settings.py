"""What a run's settings make of a table [sft]."""

from __future__ import annotations

from typing import Any

import pytest

from keeptune.errors import ConfigError
from keeptune.runs.settings import TuneSettings


def settings(**sft: Any) -> TuneSettings:
    return TuneSettings(model="base", data="text", out="out", max_length=64, sft=sft)


def test_packed_rows_are_filled_up_to_the_runs_length() -> None:
    args = settings(packing=True).sft_config(bf16=False)
    assert (args.packing, args.max_length, args.eval_packing) == (True, 64, False)
    assert settings(packing=True, max_length=256).sft_config(bf16=False).max_length == 256
    assert settings().sft_config(bf16=False).max_length is None


@pytest.mark.parametrize("length", [32, None])
def test_packing_that_would_cut_rows_is_refused(length: int | None) -> None:
    with pytest.raises(ConfigError, match="packs rows of up to 64 tokens") as caught:
        settings(packing=True, max_length=length)
    assert "max_length = 64" in caught.value.fix
