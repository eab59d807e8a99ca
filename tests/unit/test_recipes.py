"""The recipes run as they are, on the tiny model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("recipe", ["lora_sft.py", "custom_loop.py"])
def test_recipe(recipe: str, model_folder: Path, tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.txt").write_text(f"Text {number} tells of the number {number}. " * 20)
    command = [sys.executable, str(RECIPES / recipe), "--model", str(model_folder), "--data", str(tmp_path / "*.txt")]
    command += ["--out", str(tmp_path / "out"), "--steps", "2", "--replay-tokens", "4800"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "out" / "model").glob("*.safetensors"))
