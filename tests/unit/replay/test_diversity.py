"""A pool's diversity: what is counted, when a pool is called poor, and what `keeptune replay` says of it."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from keeptune.replay.diversity import (
    LIMITS,
    Diversity,
    Flaw,
    describe,
    flaws,
    languages_of,
    measure_diversity,
    separators,
)
from keeptune.replay.generate import sample_pool, text_pool
from keeptune.replay.pool import ReplayPool
from tests.helpers.cli import run
from tests.helpers.models import make_model, make_tokenizer

TOKENIZER = make_tokenizer()
END, START = TOKENIZER.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])


def ids(text: str) -> list[int]:
    found: list[int] = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    return found


def measured(*texts: str) -> Diversity:
    return measure_diversity([ids(text) for text in texts], TOKENIZER, frozenset({END, START}))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("abcd", "bcde", "axyz"), {"rows": 3, "firsts": 2, "first": "a", "first_share": 2 / 3, "duplicates": 0}),
        (("abcd", "abcd", "abcd", "abce"), {"firsts": 1, "first_share": 1.0, "duplicates": 2}),
        (("abab",), {"distinct": (2 / 4, 2 / 3, 1.0, 1.0)}),
        (("ab", "ba"), {"distinct": (2 / 4, 1.0, 1.0, 1.0)}),  # nothing reaches from a row into the next
        (("a",), {"distinct": (1.0, 1.0, 1.0, 1.0), "loops": 0, "shortest": 1}),
        (("abababababab", "abcdefghijkl"), {"loops": 1}),
        (("the cat. the cat. the cat. ",), {"loops": 1}),
        (("the cat sat on the mat",), {"loops": 0}),
        (("ab<|endoftext|>cd", "abcd<|im_end|>", "abcdef"), {"to_separator": 3.0, "with_separator": 2, "short": 2}),
        (("<|endoftext|>abc<|endoftext|>",), {"to_separator": 0.0, "with_separator": 1, "short": 1}),
        (("abcdefgh<|im_end|>", "abcdefghi<|im_end|>"), {"to_separator": 8.5, "short": 1}),
        (("abc",), {"to_separator": None, "with_separator": 0, "short": 0}),
    ],
)
def test_rows_are_counted_as_tokens(texts: tuple[str, ...], expected: dict[str, Any]) -> None:
    found = dataclasses.asdict(measured(*texts))
    assert {name: found[name] for name in expected} == {
        name: pytest.approx(value) if isinstance(value, float | tuple) else value for name, value in expected.items()
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain words 123", {"Latin": 1.0}),
        ("Straße, niño", {"Latin": 1.0}),
        ("книга", {"Cyrillic": 1.0}),
        ("βιβλίο", {"Greek": 1.0}),
        ("كتاب", {"Arabic": 1.0}),
        ("ספר", {"Hebrew": 1.0}),
        ("पत", {"Devanagari": 1.0}),
        ("책", {"Hangul": 1.0}),
        ("本ほん", {"Hiragana": 2 / 3, "Han": 1 / 3}),
        ("ＡＢ", {"Latin": 1.0}),  # full-width letters
        ("abcд", {"Latin": 0.75, "Cyrillic": 0.25}),
        ("1 + 2 = 3 ①", {}),
        ("<|im_start|><|im_end|>", {}),  # special tokens are no letters
    ],
)
def test_scripts_are_those_of_unicode(text: str, expected: dict[str, float]) -> None:
    assert measured(text).scripts == pytest.approx(expected)


def varied(rows: int = 40, length: int = 20, seed: int = 0) -> list[list[int]]:
    tokens = torch.randint(3, 259, (rows, length), generator=torch.Generator().manual_seed(seed))
    listed: list[list[int]] = tokens.tolist()
    return listed


def spoiled(rows: list[list[int]], share: float, spoil: Any) -> list[list[int]]:
    """The rows, the first `share` of them spoiled."""
    count = round(share * len(rows))
    return [*map(spoil, rows[:count]), *rows[count:]]


SPOIL = {
    Flaw.FIRST: lambda row: [3, *row[1:]],
    Flaw.DUPLICATES: lambda row: [*range(3, 23)],
    Flaw.LOOPS: lambda row: [row[0], *(row[1:3] * 20)][: len(row)],
    Flaw.SHORT: lambda row: [row[0], END, *row[2:]],
}


@pytest.mark.parametrize("flaw", list(SPOIL))
def test_a_share_surely_beyond_its_limit_is_a_flaw(flaw: Flaw) -> None:
    found = [
        flaws(measure_diversity(spoiled(varied(rows), share, SPOIL[flaw]), TOKENIZER, frozenset({END})))
        for rows, share in ((40, LIMITS[flaw] / 2), (40, LIMITS[flaw] + 0.04), (40, 0.5), (1000, LIMITS[flaw] + 0.04))
    ]
    assert flaw not in found[0]
    assert flaw not in found[1]  # by chance, of forty rows
    assert min(found[2][flaw], found[3][flaw]) > LIMITS[flaw]


def test_rows_that_repeat_each_other_are_a_flaw() -> None:
    phrases = varied(4, 10)
    rows = [[*first, *second] for first in phrases for second in phrases] * 3
    assert Flaw.PHRASES in flaws(measure_diversity(rows, TOKENIZER, frozenset()))
    assert flaws(measure_diversity(varied(), TOKENIZER, frozenset())) == {}


def test_few_or_short_rows_are_never_called_poor() -> None:
    for rows, length in ((31, 40), (80, 15)):
        assert flaws(measure_diversity([[7] * length] * rows, TOKENIZER, frozenset())) == {}
    assert set(flaws(measure_diversity([[7] * 16] * 32, TOKENIZER, frozenset()))) == {
        Flaw.FIRST, Flaw.DUPLICATES, Flaw.LOOPS, Flaw.PHRASES
    }  # fmt: skip


def test_every_finding_is_told() -> None:
    told = "\n".join(describe(measured("ab<|im_end|>", "abc"), {"en": 0.75, "unclear": 0.25}))
    for part in ("1 distinct in 2 rows", "100% are 'a'", "equal rows: 0", "Latin 100.0%", "en 75.0%", "in 1 rows"):
        assert part in told
    assert "keeptune[languages]" in "\n".join(describe(measured("ab"), None))


def test_languages_are_told_apart() -> None:
    pytest.importorskip("py3langid")
    rows = [
        ids("The river is wide and slow in summer, and the boats lie along the bank."),
        ids("Der Fluss ist im Sommer breit und träge, und die Boote liegen am Ufer."),
        ids("El río es ancho y lento en verano, y los barcos están en la orilla."),
        ids("0x3f 0x9c 0x11 {} [] ;;"),
    ]
    assert languages_of(rows, TOKENIZER) == dict.fromkeys(("en", "de", "es", "unclear"), 0.25)


def warnings(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.message for record in caplog.records if record.levelno == logging.WARNING)


@pytest.mark.parametrize(
    ("temperature", "told"),
    [(1.0, ""), (0.02, "Sample at temperature 1 (now: ancestral, temperature 0.02")],
)
def test_a_poor_pool_of_samples_is_warned_of_with_the_remedy(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, caplog: pytest.LogCaptureFixture, temperature: float, told: str
) -> None:
    caplog.set_level(logging.INFO, logger="keeptune")
    size = {"tokens": 40 * 20, "length": 20, "dtype": torch.float32}
    sample_pool(make_model(), tokenizer, tmp_path, temperature=temperature, **size)
    assert told in warnings(caplog)
    assert ("little varied" in warnings(caplog)) == bool(told)


def test_a_poor_pool_of_text_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="keeptune")
    texts = ["one and the same sentence"] * 40
    text_pool(make_model(), make_tokenizer(), tmp_path / "pool", texts, length=20, dtype=torch.float32)
    assert "100% of the rows begin with 'o'" in warnings(caplog)
    assert "Use a text of more, and more varied, documents" in warnings(caplog)


def test_separators_are_the_document_start_and_the_end(model: LlamaForCausalLM, tmp_path: Path) -> None:
    pool = sample_pool(model, TOKENIZER, tmp_path, tokens=20, length=10, prompts="chat")
    assert separators(pool, TOKENIZER) >= {START, END}


def test_show_describes_a_pool(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = tmp_path / "pool"
    assert run(monkeypatch, "replay", model_folder, "--out", pool, "--tokens", 640, "--length", 16, "--show", 2) == 0
    told = capsys.readouterr().out
    assert told.count("── sample") == 2
    before = {path.name: path.read_bytes() for path in pool.iterdir()}
    without = shutil.copytree(model_folder, tmp_path / "without")
    (without / "model.safetensors").unlink()  # no weights are needed
    assert run(monkeypatch, "replay", without, "--show", pool) == 0
    again = capsys.readouterr().out
    assert again.startswith(told.split("── sample")[0])
    for part in ("rows open with '<|endoftext|>'", "40 rows", "distinct n-grams", "equal rows", "scripts", "languages"):
        assert part in again
    assert {path.name: path.read_bytes() for path in pool.iterdir()} == before
    assert ReplayPool.open(pool).rows == 40
    for bad in (["--show", pool, "--tokens", 5], ["--show", tmp_path / "none"], []):
        assert run(monkeypatch, "replay", model_folder, *bad) == 2
    manifest = json.loads((pool / "manifest.json").read_text())
    manifest["settings"]["start_token"] = 1
    del manifest["checksum"]
    (pool / "manifest.json").write_text(json.dumps(manifest))
    assert run(monkeypatch, "replay", model_folder, "--show", pool) == 2
    assert "has another token there" in capsys.readouterr().err
