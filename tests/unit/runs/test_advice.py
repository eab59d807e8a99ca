"""Advice: said where a source says so, silent on the defaults, never in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedModel

from keeptune.demo.plan import LENGTH, METER_ROWS, DemoPlan
from keeptune.replay.generate import sample_pool
from keeptune.runs.advice import MOST_ROUNDS, advice, advise
from keeptune.runs.settings import TuneSettings
from tests.helpers.cli import run
from tests.helpers.models import make_tokenizer


def said(*, steps: int = 500, pool_rows: int = 768, **fields: Any) -> list[str]:
    settings = TuneSettings(model="base", data="text", out="out", **fields)
    return advice(settings, settings.sft_config(bf16=False), steps=steps, pool_rows=pool_rows)


@pytest.mark.parametrize("lora", [None, 16])
def test_the_defaults_need_no_advice(lora: int | None) -> None:
    assert said(lora=lora) == []
    settings = TuneSettings(model="base", data="text", out="out", lora=lora)
    assert advise(settings, settings.sft_config(bf16=False), task_rows=2_000) == []


def test_the_demos_replay_run_needs_none() -> None:
    plan = DemoPlan()
    settings = plan.tune_settings("replay")
    rows = plan.pool_tokens // LENGTH - METER_ROWS
    assert advice(settings, settings.sft_config(bf16=False), steps=plan.replay_steps, pool_rows=rows) == []


@pytest.mark.parametrize(
    ("fields", "told", "flag"),
    [
        ({"lambda_": 0.0}, "0.113 → 0.003", "--lambda 1"),
        ({"objective": "ntp"}, "0.0057 against 0.0029", "--objective kl"),
        ({"lora": 8, "learning_rate": 1e-4}, "ten times as much", "--learning-rate 0.001"),
        ({"lora": 8, "sft": {"learning_rate": 2e-5}}, "learning rate 2e-05", "--learning-rate 0.001"),
    ],
)
def test_one_line_with_number_source_and_flag(fields: dict[str, Any], told: str, flag: str) -> None:
    (line,) = said(**fields)
    assert told in line
    assert flag in line
    assert " 20" in line, "no source"


def test_a_high_rate_is_told_where_nothing_holds() -> None:
    assert said(learning_rate=1e-3) == []
    assert said(lora=8, lambda_=0.0) == said(lambda_=0.0)
    _, line = said(lambda_=0.0, learning_rate=1e-3)
    assert "1e-3 raised the old loss by 0.33" in line
    assert "--learning-rate 0.0001 or less" in line


def test_a_worn_pool_is_told_with_the_pool_that_would_do() -> None:
    assert said(steps=10 * 768 // 8) == []
    (line,) = said(steps=4_000, accumulate=2, replay_rows=6)
    assert f"used {4_000 * 12 / 768:.0f} times" in line
    assert f"--replay-tokens {4_000 * 12 // MOST_ROUNDS * 128} " in line
    assert said(steps=4_000, accumulate=2, replay_rows=6, pool_rows=4_800) == []
    assert said(steps=4_000, lambda_=0.0, pool_rows=1) == said(lambda_=0.0), "a pool that is not used wears nothing"
    assert said(pool_rows=0) == [], "such a pool is refused, not advised on"


def test_the_rows_of_a_budgets_certificate_are_not_trained_on(model: PreTrainedModel, tmp_path: Path) -> None:
    sample_pool(model, make_tokenizer(), tmp_path / "pool", tokens=24 * 16, length=16)
    shared: dict[str, Any] = {
        "model": "base",
        "data": "text",
        "out": "out",
        "replay": str(tmp_path / "pool"),
        "drift_rows": 4,
    }
    for budget, used in ((None, 10), (0.02, 15)):  # 20 and 13 rows, 2 scale, 5 certify
        settings = TuneSettings(**shared, budget=budget, steps=25)
        lines = advise(settings, settings.sft_config(bf16=False), task_rows=99)
        assert bool(lines) == (used > MOST_ROUNDS)
        assert all(f"used {used} times" in line for line in lines)


def test_a_run_says_it_once_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path, tmp_path: Path
) -> None:
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text(f"Text {number} is about the number {number}. " * 9)
    small = ["--batch-size", 2, "--max-length", 32, "--drift-rows", 4, "--replay-length", 16, "--replay-tokens", 32]
    out = tmp_path / "run"
    assert run(monkeypatch, "tune", model_folder, tmp_path / "*.txt", "--out", out, *small, "--objective", "ntp") == 0
    advised = [line for line in capsys.readouterr().err.splitlines() if line.startswith("advice: ")]
    assert [("ntp" in line, "replay row" in line) for line in advised] == [(True, False), (False, True)]
    assert (out / "model").is_dir()
