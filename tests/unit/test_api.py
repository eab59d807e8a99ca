"""The public names: a list that is a decision, an example of each that runs, and an import that stays light."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import keeptune
from tests.helpers.models import make_model, make_tokenizer

PUBLIC = {
    "Drift", "KeepConfig", "KeepDPOTrainer", "KeepGRPOTrainer", "KeepMixin", "KeepSFTTrainer", "KeepTrainer",
    "KeeptuneError", "ReplayPool", "Report", "audit", "keep_tuning", "load_documents", "load_model", "load_tokenizer",
    "measure", "sample_pool", "save_model", "text_pool",
}  # fmt: skip
PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^### (\w+)$.*?```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))


def test_public_names_are_a_decision() -> None:
    assert set(keeptune.__all__) == PUBLIC
    for name in keeptune.__all__:
        assert getattr(keeptune, name).__doc__
    with pytest.raises(AttributeError, match="nosuch"):
        _ = keeptune.nosuch


def test_every_public_name_has_an_example() -> None:
    assert set(EXAMPLES) == PUBLIC


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the page speaks of; the examples run in its order, so that a later one finds `run/model`."""
    folder = tmp_path_factory.mktemp("api")
    make_model().save_pretrained(folder / "base")
    make_tokenizer().save_pretrained(folder / "base")
    (folder / "notes").mkdir()
    for number in range(12):
        (folder / "notes" / f"{number}.txt").write_text(f"Note {number} speaks of the number {number}. " * 3)
    return folder


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(folder)
    assert name in EXAMPLES[name]
    exec(compile(EXAMPLES[name], f"docs/api.md, {name}", "exec"), {"__name__": name})  # noqa: S102


def test_the_import_is_light() -> None:
    code = "import sys, keeptune; keeptune.KeepConfig(); "
    code += "heavy = {'scipy', 'matplotlib', 'pydantic', 'keeptune.laws', 'trl', 'datasets'} & set(sys.modules); "
    code += "assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
