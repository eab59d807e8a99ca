"""TRL's own tests of SFTTrainer, on keeptune's: plain, with λ = 0 and with λ = 1.

    TRL_TESTS=PATH/TO/trl/tests python tests/trl/run.py           # then docs/trl-tests.md

PATH is the folder `tests` of a clone of TRL. The file is copied to .trl/ (git-ignored), its models and data sets are
made locally (standins.py), and each test that passes plainly must pass with keeptune's trainer.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.trl.standins import make_all  # noqa: E402

HOME = ROOT / ".trl"
RESULT, PAGE = ROOT / "docs" / "trl-tests.json", ROOT / "docs" / "trl-tests.md"
MODES = {"plain": None, "λ = 0": "0", "λ = 1": "1"}
EXPECTED = json.loads(Path(__file__).with_name("expected.json").read_text(encoding="utf-8"))
"""Tests that differ, with the reason: true of keeptune, and not a fault."""
_FILES = ("__init__.py", "conftest.py", "testing_utils.py", "testing_constants.py", "test_sft_trainer.py")


def main() -> None:
    """Run the tests in each mode, compare, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=Path, default=os.environ.get("TRL_TESTS"), help="the folder tests of a clone")
    parser.add_argument("-k", default="", help="as of pytest")
    arguments = parser.parse_args()
    if arguments.tests is None or not (arguments.tests / "test_sft_trainer.py").is_file():
        parser.error("name the folder tests of a clone of TRL: TRL_TESTS=PATH make trl-tests")
    make_all(HOME)
    copy_tests(arguments.tests)
    outcomes = {mode: run(mode, weight, arguments.k) for mode, weight in MODES.items()}
    differences = write(result_of(outcomes, arguments.k))
    sys.exit(any(difference["reason"] is None for difference in differences))


def result_of(outcomes: dict[str, dict[str, str]], chosen: str) -> dict[str, Any]:
    """All that is written: counts, every outcome, and the tests that pass plainly and not with keeptune."""
    differences = [
        {"test": name, **{mode: outcomes[mode].get(name, "missing") for mode in MODES}, "reason": EXPECTED.get(name)}
        for name, outcome in outcomes["plain"].items()
        if outcome == "passed" and any(outcomes[mode].get(name) != "passed" for mode in MODES)
    ]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "chosen": chosen,
        "versions": {name: version(name) for name in ("trl", "transformers", "peft", "datasets", "torch")},
        "counts": {mode: counts(found) for mode, found in outcomes.items()},
        "differences": differences,
        "outcomes": {name: {mode: outcomes[mode].get(name, "missing") for mode in MODES} for name in outcomes["plain"]},
    }


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


def run(mode: str, weight: str | None, chosen: str) -> dict[str, str]:
    """The outcome of each test in a mode."""
    report = HOME / f"{mode.replace(' = ', '')}.xml"
    settings = {} if weight is None else {"KEEPTUNE_LAMBDA": weight}
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "tests.trl.plugin"]
    command += ["-p", "no:cacheprovider", "--import-mode=importlib", "-c", os.devnull, "--rootdir", str(HOME)]
    command += [f"--junitxml={report}", "tests_of_trl/test_sft_trainer.py", *(["-k", chosen] if chosen else [])]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": paths, **settings}
    with report.with_suffix(".log").open("w", encoding="utf-8") as log:
        subprocess.run(command, cwd=HOME, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - our own report
        kinds = {child.tag for child in case}
        state = next((kind for kind in ("failure", "error", "skipped") if kind in kinds), "passed")
        outcomes[f"{case.get('classname', '').rsplit('.', 1)[-1]}::{case.get('name')}"] = state
    print(f"{mode}: {counts(outcomes)}", flush=True)
    return outcomes


def counts(outcomes: dict[str, str]) -> dict[str, int]:
    """How many tests came out how."""
    return {state: list(outcomes.values()).count(state) for state in ("passed", "failure", "error", "skipped")}


def write(result: dict[str, Any]) -> list[dict[str, Any]]:
    """docs/trl-tests.json, and the page that people read."""
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = [
        "# TRL's own tests",
        "",
        "`TRL_TESTS=PATH make trl-tests` runs TRL's own `tests/test_sft_trainer.py`, from a clone that PATH names,",
        "with TRL's trainer and with keeptune's in its place. The models and data sets that the file names are local",
        "stand-ins. A test without one fails in every mode, as do tests of private functions of another release.",
        "Whole result: [trl-tests.json](trl-tests.json).",
        "",
        "| trainer | passed | failed | errors | skipped |",
        "|---|---|---|---|---|",
    ]
    for mode, count in result["counts"].items():
        name = "`SFTTrainer`" if mode == "plain" else f"`KeepSFTTrainer`, {mode}"
        lines.append(f"| {name} | {' | '.join(str(number) for number in count.values())} |")
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    part = f" A part of the tests only: `-k '{result['chosen']}'`." if result["chosen"] else ""
    lines += ["", f"{result['date']}, {versions}.{part}", ""]
    lines.append(
        "Tests that pass with TRL's trainer and not with keeptune's:" if result["differences"] else "No test differs."
    )
    for row in result["differences"]:
        test = re.sub(r"trl-internal-testing/", "", row["test"])
        lines.append(f"- `{test}`: λ = 0 {row['λ = 0']}, λ = 1 {row['λ = 1']}. {row['reason'] or 'Unexplained.'}")
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    differences: list[dict[str, Any]] = result["differences"]
    return differences


if __name__ == "__main__":
    main()
