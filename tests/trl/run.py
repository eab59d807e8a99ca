"""TRL's own tests of SFTTrainer, on keeptune's: plain, with λ = 0 and with λ = 1.

    TRL_TESTS=PATH/TO/trl/tests python tests/trl/run.py           # then docs/trl-tests.md

PATH is the folder `tests` of a clone of TRL. The file is copied to .trl/ (git-ignored), its models and data sets are
made locally (standins.py, vision.py, data.py), and each test that passes plainly must pass with keeptune's trainer.
An interrupted run resumes, test by test.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.trl.page import write  # noqa: E402

HOME = ROOT / ".trl"
SITE = HOME / "site"
MODES = {"plain": None, "λ = 0": "0", "λ = 1": "1"}
EXPECTED = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
"""Tests that fail in every mode because TRL has changed, or differ without a fault of keeptune, with the reason."""
# What the tests need beside keeptune's own requirements; torchvision for the videos of Qwen's and Gemma 4's processors.
MORE = {
    "torchvision": "torchvision==0.28.0",
    "pytest_datadir": "pytest-datadir",
    "bitsandbytes": "bitsandbytes==0.50.2",
}
LIBRARIES = ("trl", "transformers", "peft", "datasets", "torch")
_FILES = ("__init__.py", "conftest.py", "testing_utils.py", "testing_constants.py", "test_sft_trainer.py")


def main() -> None:
    """Run the tests in each mode, compare, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=Path, default=os.environ.get("TRL_TESTS"), help="the folder tests of a clone")
    parser.add_argument("-k", default="", help="as of pytest")
    parser.add_argument("--again", action="store_true", help="do not resume an interrupted run")
    arguments = parser.parse_args()
    if arguments.tests is None or not (Path(arguments.tests) / "test_sft_trainer.py").is_file():
        parser.error("name the folder tests of a clone of TRL: TRL_TESTS=PATH make trl-tests")
    install()
    prepare(Path(arguments.tests), arguments.k, arguments.again)
    outcomes = {mode: run(mode, weight, arguments.k) for mode, weight in MODES.items()}
    release = Path(arguments.tests).parent / "VERSION"
    source = release.read_text(encoding="utf-8").strip() if release.is_file() else None
    result = result_of(outcomes, arguments.k, source)
    differences = write(result, tuple(MODES))
    unfinished = any("not run" in row.values() for row in result["tests"])
    if not unfinished:
        (HOME / "running.json").unlink()
    sys.exit(unfinished or any(difference["reason"] is None for difference in differences))


def install() -> None:
    """Put what is missing in a folder of its own, without requirements, so that no other test sees it."""
    sys.path.append(str(SITE))
    missing = [wanted for module, wanted in MORE.items() if importlib.util.find_spec(module) is None]
    if missing:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(SITE)]
        subprocess.run([*pip, *missing], check=True)
        importlib.invalidate_caches()


def prepare(tests: Path, chosen: str, again: bool) -> None:
    """Make models and data, copy the tests, and forget the outcomes of a run that is not the same."""
    if not (HOME / "made").is_file():
        from tests.trl.torchvision_cpu import declare_operators  # noqa: PLC0415 - before transformers is imported

        declare_operators()
        from tests.trl.data import make_data  # noqa: PLC0415
        from tests.trl.standins import make_text  # noqa: PLC0415
        from tests.trl.vision import make_vision  # noqa: PLC0415

        make_text(HOME / "trl-internal-testing")
        make_vision(HOME / "trl-internal-testing")
        make_data(HOME)
        shutil.rmtree(HOME / "datasets", ignore_errors=True)
        (HOME / "made").write_text("", encoding="utf-8")
    copy_tests(tests)
    running, settings = HOME / "running.json", {"chosen": chosen, **{name: version(name) for name in LIBRARIES}}
    if again or not running.is_file() or json.loads(running.read_text(encoding="utf-8")) != settings:
        for mode in MODES:
            outcomes_of(mode).unlink(missing_ok=True)
        running.write_text(json.dumps(settings), encoding="utf-8")


def copy_tests(source: Path) -> None:
    """TRL's files that the tests need, into the working directory."""
    folder = HOME / "tests_of_trl"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in _FILES:
        if (source / name).is_file():
            shutil.copy(source / name, folder / name)
    shutil.copytree(source / "data", folder / "data")
    shutil.rmtree(HOME / "tests" / "data", ignore_errors=True)
    shutil.copytree(source / "data", HOME / "tests" / "data")  # named relative to the root of TRL


def outcomes_of(mode: str) -> Path:
    """The file that the plugin writes."""
    return HOME / f"{mode.replace(' = ', '')}.jsonl"


def run(mode: str, weight: str | None, chosen: str) -> dict[str, dict[str, str]]:
    """The outcome of each test in a mode, and the reason where it did not pass."""
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "tests.trl.plugin"]
    command += ["-p", "no:cacheprovider", "--import-mode=importlib", "-c", os.devnull, "--rootdir", str(HOME)]
    command += ["tests_of_trl/test_sft_trainer.py", *(["-k", chosen] if chosen else [])]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH"), str(SITE)]))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": paths}
    # datasets would take rows of the same name from the user's cache.
    environment["HF_DATASETS_CACHE"] = str(HOME / "datasets")
    environment["KEEPTUNE_OUTCOMES"] = str(outcomes_of(mode))
    if weight is not None:
        environment["KEEPTUNE_LAMBDA"] = weight
    with outcomes_of(mode).with_suffix(".log").open("a", encoding="utf-8") as log:
        subprocess.run(command, cwd=HOME, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    rows = [json.loads(line) for line in outcomes_of(mode).read_text(encoding="utf-8").splitlines()]
    states = [row["outcome"] for row in rows]
    print(f"{mode}: {', '.join(f'{states.count(state)} {state}' for state in sorted(set(states)))}", flush=True)
    return {row["test"]: row for row in rows}


def result_of(outcomes: dict[str, dict[str, dict[str, str]]], chosen: str, source: str | None) -> dict[str, Any]:
    """All that is written: every outcome, and the tests that pass plainly and not with keeptune."""
    tests = []
    for name in dict.fromkeys(name for found in outcomes.values() for name in found):
        rows = {mode: found.get(name, {"outcome": "not run", "reason": ""}) for mode, found in outcomes.items()}
        why = next((row["reason"] for row in rows.values() if row["reason"]), "")
        states = {mode: row["outcome"] for mode, row in rows.items()}
        tests.append({"test": name, **states, "why": why, "reason": EXPECTED.get(name)})
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "chosen": chosen,
        "tests_of": source,
        "versions": {name: version(name) for name in LIBRARIES},
        "tests": tests,
    }


if __name__ == "__main__":
    main()
