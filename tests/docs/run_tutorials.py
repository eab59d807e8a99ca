"""The tutorials run: their blocks of Python and of shell commands, page by page, on a tiny model; `make notebooks`.

Not a part of `make test`, which would take a minute longer. The code runs as it stands on the page, except for what a
CPU and a tiny model need: `FOR_A_CPU`.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.test_pages import BLOCK, ROOT
from tests.helpers.cli import run
from tests.helpers.models import make_model, make_tokenizer

FOR_A_CPU = {
    "KeepConfig(lambda_=1.0": "KeepConfig(lambda_=1.0, replay_tokens=512, replay_length=16, drift_rows=4",
    "Config(output_dir=": "Config(use_cpu=True, bf16=False, report_to='none', output_dir=",
}


def stand_in(folder: Path) -> None:
    """The models and data that the tutorials name, tiny."""
    for name in ("base", "Qwen/Qwen3-0.6B"):
        make_model().save_pretrained(folder / name)
        make_tokenizer().save_pretrained(folder / name)
    make_model(seed=1).save_pretrained(folder / "run" / "model")
    make_tokenizer().save_pretrained(folder / "run" / "model")
    (folder / "notes").mkdir()
    for number in range(24):
        (folder / "notes" / f"{number}.txt").write_text(f"Note {number} speaks of the number {number}. " * 3)

    def chat(answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": "How far?"}, {"role": "assistant", "content": answer}]

    rows = {
        "Capybara": [{"messages": chat(f"{number} miles.")} for number in range(8)],
        "ultrafeedback_binarized": [{"chosen": chat(f"{n} miles."), "rejected": chat("No.")} for n in range(8)],
        "tldr": [{"prompt": f"Number {number}"} for number in range(8)],
    }
    for name, of in rows.items():
        file = folder / "trl-lib" / name / "train.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in of))


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "tutorials").glob("*.md")), ids=lambda page: page.stem)
def test_the_tutorial_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [match for match in BLOCK.finditer(page.read_text(encoding="utf-8")) if "no-test" not in match[2]]
    if not any(match[1] in ("python", "bash") for match in blocks):
        pytest.skip("nothing to run")
    stand_in(tmp_path)
    if page.stem == "first-run":
        (tmp_path / "run").rename(tmp_path / "another")
    for match in blocks:
        if match[1] == "python":
            code = match[3]
            for said, small in FOR_A_CPU.items():
                code = code.replace(said, small)
            exec(compile(code, str(page), "exec"), {"__name__": page.stem})  # noqa: S102
        elif match[1] == "bash":
            for words in shell_commands(match):
                assert run(monkeypatch, *words) == 0, words


def shell_commands(block: re.Match[str]) -> Iterator[list[str]]:
    """The commands of one block."""
    for line in block[3].replace("\\\n", " ").splitlines():
        yield shlex.split(line, comments=True)[1:]
