"""Sizes that do not fit, in every verb: two lines and exit code 2, before anything is sampled or trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from keeptune import cli
from tests.helpers.models import make_tokenizer

POSITIONS = 24
ROWS = ("--max-length", "32")
VERBS: dict[str, tuple[str, ...]] = {
    "tune": ("MODEL", "DATA", "--steps", "2", "--replay-tokens", "96", "--replay-length", "16", *ROWS),
    "tune, replay rows": ("MODEL", "DATA", "--steps", "2", "--replay-length", "32", "--max-length", "16"),
    "tune, λ = 0": ("MODEL", "DATA", "--steps", "2", "--lambda", "0", "--drift-rows", "2", *ROWS),
    "replay": ("MODEL", "--tokens", "96", "--length", "32"),
    "replay, text": ("MODEL", "--tokens", "96", "--length", "32", "--text", "DATA"),
    "audit": ("MODEL", "MODEL", "--docs", "2", *ROWS),
    "audit, stages": ("MODEL", "MODEL", "--stages", "--text", "own=DATA", "--docs", "2", *ROWS),
    "plan": ("MODEL", "DATA", "--budget", "0.1", "--minutes", "1", *ROWS),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    texts = [f"Document {number} speaks of the number {number}. " * 8 for number in range(60)]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return file


def base(folder: Path, change: Callable[[Any], None]) -> Path:
    tokenizer = make_tokenizer(chat_template=None)
    config = GPT2Config(vocab_size=259, n_embd=32, n_layer=1, n_head=4, n_positions=POSITIONS, bos_token_id=1)
    change(tokenizer)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def run(
    verb: str, model: Path, data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[str]]:
    given = [word.replace("MODEL", str(model)).replace("DATA", str(data)) for word in VERBS[verb]]
    monkeypatch.setattr("sys.argv", ["keeptune", verb.partition(",")[0], *given, "--out", str(out)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return int(stopped.value.code or 0), [line for line in error.splitlines() if line]


def no_ends(tokenizer: Any) -> None:
    tokenizer.pad_token = tokenizer.eos_token = None


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("change", "what", "fix"),
    [
        (lambda tokenizer: None, f"longer than the {POSITIONS} positions of GPT2LMHeadModel", "at most 24 tokens"),
        (lambda tokenizer: tokenizer.add_tokens(["<new>"]), "ids up to 259, and GPT2LMHeadModel embeds 259", "resize"),
        (no_ends, "neither a pad_token nor an eos_token", "set tokenizer.eos_token"),
    ],
    ids=["positions", "tokens", "ends"],
)
def test_two_lines_and_exit_code_2(
    verb: str,
    change: Callable[[Any], None],
    what: str,
    fix: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, out = base(tmp_path / "base", change), tmp_path / "out"
    code, lines = run(verb, model, data, out, monkeypatch, capsys)
    assert code == 2, lines
    assert lines[-2].startswith("keeptune: ") and what in lines[-2], lines
    assert lines[-1].startswith("  → ") and fix in lines[-1], lines
    assert not list(tmp_path.glob("out/**/*.safetensors")), "something was sampled or trained"
