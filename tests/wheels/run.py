"""The wheel and the sdist, installed into empty environments and used there: docs/wheels.md.

    python tests/wheels/run.py                   # every case, then docs/wheels.json and docs/wheels.md
    python tests/wheels/run.py py3.12-newest     # one

A case is a Python, newest or lowest dependencies, and what is installed. Nothing of this checkout is importable there:
`smoke.py` runs in an empty folder. An environment is deleted when its case is done, since many hold torch's CUDA build.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".wheels"
RESULT, PAGE = ROOT / "docs" / "wheels.json", ROOT / "docs" / "wheels.md"
LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "numpy")


class Case(NamedTuple):
    """One environment."""

    python: str
    versions: str  # newest, or lowest: the floors of pyproject.toml, where they have a wheel for this Python
    artifact: str  # wheel or sdist


CASES = {
    "py3.11-newest": Case("3.11", "newest", "wheel"),
    "py3.11-sdist": Case("3.11", "newest", "sdist"),
    "py3.11-lowest": Case("3.11", "lowest", "wheel"),
    "py3.12-newest": Case("3.12", "newest", "wheel"),
    "py3.12-lowest": Case("3.12", "lowest", "wheel"),
    "py3.13-newest": Case("3.13", "newest", "wheel"),
    "py3.13-lowest": Case("3.13", "lowest", "wheel"),
    "py3.14-newest": Case("3.14", "newest", "wheel"),
}


def main() -> None:
    """Build, then run the cases that are asked for, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default all")
    asked = parser.parse_args().cases or list(CASES)
    if unknown := set(asked) - set(CASES):
        parser.error(f"no case is called {', '.join(sorted(unknown))}")
    artifacts = build()
    results = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    for name in asked:
        case = CASES[name]
        results[name] = {**case._asdict(), **run(name, case, artifacts[case.artifact])}
        print(f"{name}: {results[name]['result']}", flush=True)
        write({case: results[case] for case in CASES if case in results})
    sys.exit(any(results[name]["result"].startswith("failed") for name in asked))


def build() -> dict[str, Path]:
    """The sdist, and the wheel that is built from it, as `python -m build` makes them."""
    shutil.rmtree(HOME / "dist", ignore_errors=True)
    subprocess.run([uv(), "build", "--quiet", "--out-dir", str(HOME / "dist"), str(ROOT)], check=True)
    (wheel,), (sdist,) = (list((HOME / "dist").glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    return {"wheel": wheel, "sdist": sdist}


def uv() -> str:
    """uv, from an environment of its own."""
    program = HOME / "uv" / "bin" / "uv"
    if not program.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(HOME / "uv")], check=True)
        install = [str(HOME / "uv" / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv"]
        subprocess.run(install, check=True)
    return str(program)


def interpreter(version: str) -> str | None:
    """A Python of this version: on the path, or of pyenv."""
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for found in (shutil.which(f"python{version}"), *map(str, pyenv)):
        if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
            return found
    return None


def run(name: str, case: Case, artifact: Path) -> dict[str, Any]:
    """Install one case and use it; what became of it."""
    day = {"date": datetime.now(UTC).date().isoformat()}
    python = interpreter(case.python)
    if python is None:
        return {"result": f"not run: no Python {case.python} on this machine; the hosted matrix has it", **day}
    HOME.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME, ignore_cleanup_errors=True) as folder:
        environment = Path(folder) / "environment"
        subprocess.run([uv(), "venv", "--quiet", "--python", python, str(environment)], check=True)
        inside = environment / "bin" / "python"
        begin = time.monotonic()
        resolution = ["--resolution", "lowest-direct"] if case.versions == "lowest" else []
        # A floor without a wheel for this Python is passed over; the sdist of keeptune itself is built.
        wheels = ["--no-build"] if case.artifact == "wheel" else ["--only-binary", "torch"]
        done = subprocess.run(
            [uv(), "pip", "install", "--quiet", "--python", str(inside), *resolution, *wheels, str(artifact)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            return {"result": f"failed to install: {done.stderr.strip()[-600:]}", **day}
        installed = time.monotonic() - begin
        code = "import sys; from importlib.metadata import version; "
        code += f"print(sys.version.split()[0], *map(version, {LIBRARIES!r}))"
        shown = subprocess.run([str(inside), "-c", code], capture_output=True, text=True, check=True).stdout.split()
        begin = time.monotonic()
        smoke = [str(inside), "-I", str(Path(__file__).with_name("smoke.py")), str(environment / "bin")]
        plain = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
        # A newcomer's machine: no cache, no model, no hub.
        plain |= {
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(Path(folder) / "hub"),
            "KEEPTUNE_CACHE": str(Path(folder) / "c"),
        }
        (Path(folder) / "empty").mkdir()
        done = subprocess.run(smoke, cwd=Path(folder) / "empty", env=plain, capture_output=True, text=True, check=False)
        (HOME / f"{name}.log").write_text(done.stdout + done.stderr, encoding="utf-8")
        return {
            "result": "passed" if done.returncode == 0 else f"failed: see .wheels/{name}.log",
            "exact python": shown[0],
            "libraries": dict(zip(LIBRARIES, shown[1:], strict=True)),
            "seconds to install": round(installed),
            "seconds of use": round(time.monotonic() - begin),
            **day,
        }


def write(results: dict[str, Any]) -> None:
    """docs/wheels.json, and the table that people read."""
    RESULT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# Wheels",
        "",
        "The wheel and the sdist, each installed into an empty environment and used there by `make wheels`: the",
        "public names, then `keeptune replay`, `tune`, `audit` and `KeepSFTTrainer` on a tiny model, without the",
        "checkout. *Lowest* takes the floors of `pyproject.toml`, or the lowest release above them with a wheel for",
        "that Python. Raw result: [wheels.json](wheels.json).",
        "",
        f"| Python | dependencies | installed from | result | {' | '.join(LIBRARIES)} | date |",
        f"|{'---|' * (len(LIBRARIES) + 5)}",
    ]
    for of in results.values():
        versions = " | ".join(of.get("libraries", {}).get(library, "–") for library in LIBRARIES)
        result = of["result"].splitlines()[0].replace("|", "\\|")
        exact = of.get("exact python", of["python"])
        lines.append(f"| {exact} | {of['versions']} | {of['artifact']} | {result} | {versions} | {of['date']} |")
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
