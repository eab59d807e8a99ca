"""The files around the code: workflows and forms parse, versions agree, and the action runs what it is told to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
YAML = [
    *ROOT.glob(".github/**/*.yml"),
    *ROOT.glob("recipes/*.yaml"),
    ROOT / "action.yml",
    ROOT / "CITATION.cff",
]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


@pytest.mark.parametrize("path", YAML, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_yaml_file_parses(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_versions_agree() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == VERSION


@pytest.mark.parametrize("workflow", sorted(ROOT.glob(".github/workflows/*.yml")), ids=lambda path: path.name)
def test_a_workflow_may_read_and_nothing_else_unless_a_job_says_so(workflow: Path) -> None:
    assert yaml.safe_load(workflow.read_text(encoding="utf-8"))["permissions"] == {"contents": "read"}


def test_only_the_tag_of_the_version_is_released() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))["jobs"]
    (check,) = (step["run"] for step in jobs["build"]["steps"] if step.get("name") == "The tag is the version")
    python = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for tag, right in ((f"v{VERSION}", True), (VERSION, False), ("v99.0.0", False)):
        environment = {**os.environ, "GITHUB_REF_NAME": tag, "PATH": python}
        done = subprocess.run(["bash", "-e", "-c", check], cwd=ROOT, env=environment, capture_output=True)
        assert (done.returncode == 0) is right, (tag, done.stderr)


@pytest.fixture
def action(tmp_path: Path) -> Any:
    """Runs the audit step with inputs; `keeptune` on its path writes its arguments down and ends with a code."""
    steps = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))["runs"]["steps"]
    (script,) = (step["run"] for step in steps if step.get("id") == "audit")
    recorder = tmp_path / "bin" / "keeptune"
    recorder.parent.mkdir()
    recorder.write_text(
        f"#!{sys.executable}\n"
        "import json, os, pathlib, sys\n"
        "pathlib.Path('given.json').write_text(json.dumps(sys.argv[1:]))\n"
        "pathlib.Path(os.environ['OUT']).mkdir(exist_ok=True)\n"
        "pathlib.Path(os.environ['OUT'], 'summary.md').write_text('| table |\\n')\n"
        "sys.exit(int(os.environ['CODE']))\n"
    )
    recorder.chmod(0o755)

    def run(code: int = 0, **inputs: str) -> tuple[int, list[str]]:
        environment = {
            **os.environ,
            "BASE": "base",
            "TUNED": "run/model",
            "BOUNDS": "kl=0.05\n",
            "ARGUMENTS": "",
            "OUT": "audit",
            **inputs,
            "PATH": f"{recorder.parent}:{os.environ['PATH']}",
            "GITHUB_OUTPUT": str(tmp_path / "output"),
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
            "CODE": str(code),
        }
        done = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", script], cwd=tmp_path, env=environment)
        return done.returncode, json.loads((tmp_path / "given.json").read_text())

    return run


_WRITTEN = ["--junit", "audit/junit.xml", "--markdown", "audit/summary.md"]


def test_the_action_passes_bounds_and_arguments_on(action: Any, tmp_path: Path) -> None:
    bounds, more = "kl=0.05\n\nnotes:ce_change=0.02\n", "--text notes=notes/*.txt\n--docs 8"
    code, given = action(BOUNDS=bounds, ARGUMENTS=more)
    assert code == 0
    expected = ["audit", "base", "run/model", "--out", "audit", "--fail-above", "kl=0.05"]
    expected += ["--fail-above", "notes:ce_change=0.02", "--text", "notes=notes/*.txt", "--docs", "8", *_WRITTEN]
    assert given == expected
    assert (tmp_path / "summary").read_text() == "| table |\n"
    assert (tmp_path / "output").read_text() == "report=audit/report.json\n"


@pytest.mark.parametrize("code", [1, 2, 70])
def test_the_action_ends_with_the_code_of_the_audit_and_shows_the_table(action: Any, tmp_path: Path, code: int) -> None:
    assert action(code)[0] == code
    assert (tmp_path / "summary").read_text() == "| table |\n"


@pytest.mark.parametrize("hostile", ["$(touch here)", "`touch here`", "a; touch here", '" touch here "', "*"])
def test_the_action_runs_nothing_of_its_inputs(action: Any, tmp_path: Path, hostile: str) -> None:
    code, given = action(BASE=hostile, BOUNDS=hostile, ARGUMENTS=hostile)
    assert code == 0 and not (tmp_path / "here").exists()
    assert given[1] == hostile
    assert given[given.index("--fail-above") + 1] == hostile
    assert given[given.index("--fail-above") + 2 : -4] == hostile.split()


def test_dictionaries_of_anything_are_few() -> None:
    sources = (ROOT / "src").rglob("*.py")
    assert sum(file.read_text(encoding="utf-8").count("dict[str, Any]") for file in sources) <= 30
