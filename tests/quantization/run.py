"""`make quantization`: the table of quantizations and the tests of bitsandbytes, in an environment of its own.

    python tests/quantization/run.py [NAME ...]      # rows of the table; default all

An environment that stands is used again. What the rows do stands in table.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".quantization"
# gptqmodel and hqq are built from their sources; gptqmodel serves GPTQ and AWQ.
PACKAGES = ("bitsandbytes", "torchao", "compressed-tensors", "gptqmodel", "optimum-quanto", "hqq")
NEEDED_BY_THEM = ("pypcre", "device-smi", "tokenicer", "logbar", "defuser", "termcolor", "loguru", "ninja")
TESTS = (
    "tests/unit/models/test_quantized.py",
    "tests/unit/runs/test_run.py",
    "tests/unit/repair/test_run.py",
    "tests/invariants/test_recipes.py",
)


def main() -> None:
    """Run the table and the tests of bitsandbytes in the environment."""
    python = str(environment())
    table = subprocess.run([python, "-m", "tests.quantization.table", *sys.argv[1:]], cwd=ROOT, check=False).returncode
    tests = subprocess.run([python, "-m", "pytest", *TESTS, "-k", "quantiz or qlora"], cwd=ROOT, check=False).returncode
    sys.exit(table or tests)


def environment() -> Path:
    """A Python with every package that installs on a CPU beside the pinned torch."""
    python = HOME / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet"]
        pinned = [
            "--constraint",
            str(ROOT / "constraints.txt"),
            "--editable",
            str(ROOT),
            "pytest>=8",
            "psutil",
            "setuptools>=78",
        ]
        subprocess.run([*install, *pinned], check=True)
        # Without their dependencies, which would replace torch; what does not install is a row that says so.
        for package in (*NEEDED_BY_THEM, *PACKAGES):
            subprocess.run([*install, "--no-build-isolation", "--no-deps", package], check=False)
    return python


if __name__ == "__main__":
    main()
