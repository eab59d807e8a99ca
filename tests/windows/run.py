"""Tests of training under the versions that hosts pin: a virtual environment for each window of windows.toml.

    python tests/windows/run.py              # every window, then docs/windows.md
    python tests/windows/run.py axolotl      # one

An environment that stands is used again. Failures of a window are in .windows/NAME.log.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".windows"
RESULT, PAGE = ROOT / "docs" / "windows.json", ROOT / "docs" / "windows.md"
TESTS = (
    "tests/invariants/test_training.py",
    "tests/invariants/test_trainers.py",
    "tests/invariants/test_teachers.py",
    "tests/invariants/test_packing.py",
    "tests/invariants/test_budget.py",
    "tests/unit/train",
)
LIBRARIES = ("trl", "peft", "transformers", "datasets", "accelerate", "torch")


def main() -> None:
    """Run the windows that are asked for, and write what came out."""
    windows = tomllib.loads(Path(__file__).with_name("windows.toml").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("windows", nargs="*", metavar="NAME", help=f"of {', '.join(windows)}; default all")
    parser.add_argument("--torch", default="torch==2.13.0", help="what pip installs as torch")
    arguments = parser.parse_args()
    asked = arguments.windows or list(windows)
    if unknown := set(asked) - set(windows):
        parser.error(f"no window is called {', '.join(sorted(unknown))}")
    results = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    for name in asked:
        python = environment(name, [*windows[name]["pins"], arguments.torch])
        results[name] = {"why": windows[name]["why"], **run(name, python)}
        print(f"{name}: {results[name]['passed']} passed, {results[name]['failed']} failed", flush=True)
        write({window: results[window] for window in windows if window in results})
    sys.exit(any(results[name]["failed"] for name in asked))


def environment(name: str, pins: list[str]) -> Path:
    """The window's Python; its environment is made anew where the pins have changed."""
    folder = HOME / name
    python, mark = folder / "bin" / "python", folder / "pins.json"
    if mark.is_file() and json.loads(mark.read_text(encoding="utf-8")) == pins:
        return python
    print(f"{name}: installing {', '.join(pins)}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--editable", str(ROOT), "pytest>=8", "pytest-xdist>=3.6", "psutil", *pins], check=True)
    mark.write_text(json.dumps(pins), encoding="utf-8")
    return python


def run(name: str, python: Path) -> dict[str, Any]:
    """The counts of the tests under one window, and the versions they ran with."""
    begin = time.monotonic()
    command = [str(python), "-m", "pytest", "-n", "2", "--dist", "loadfile", *TESTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    (HOME / f"{name}.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error|skipped)", last)}
    code = f"from importlib.metadata import version; print(*map(version, {LIBRARIES!r}))"
    versions = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.split()
    broken = counts.get("failed", 0) + counts.get("error", 0)
    return {
        "passed": counts.get("passed", 0),
        "failed": broken or int(done.returncode != 0),
        "skipped": counts.get("skipped", 0),
        "minutes": round((time.monotonic() - begin) / 60, 1),
        "versions": dict(zip(LIBRARIES, versions, strict=True)),
        "python": sys.version.split()[0],
        "date": datetime.now(UTC).date().isoformat(),
    }


def write(results: dict[str, Any]) -> None:
    """docs/windows.json, and the table that people read."""
    RESULT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# Version windows",
        "",
        "Which versions of the libraries keeptune is tested with: `make windows` runs the tests of training, trainers,",
        "teachers, budgets and packing in an environment of their own for each row. Raw result: "
        "[windows.json](windows.json).",
        "",
        f"| window | {' | '.join(LIBRARIES)} | Python | passed | failed | date |",
        f"|---|{'---|' * (len(LIBRARIES) + 4)}",
    ]
    for name, of in results.items():
        versions = " | ".join(of["versions"][library] for library in LIBRARIES)
        lines.append(f"| {name} | {versions} | {of['python']} | {of['passed']} | {of['failed']} | {of['date']} |")
    lines += ["", *(f"- **{name}**: {of['why']}." for name, of in results.items())]
    lines += [
        "",
        "Older releases of torch (2.6 and later) and other Pythons (3.12 to 3.14) are admitted, and not in this table.",
    ]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
