"""The recipes run as they are, on the tiny model."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import tomllib
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml

from keeptune import cli
from keeptune.audit.gate import parse_bounds
from keeptune.audit.texts import named_sources
from tests.helpers.forked import Forked
from tests.helpers.quantized import needs_bitsandbytes
from tests.helpers.ranks import long

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("recipe", ["lora_sft.py", "custom_loop.py", "finch.py"])
def test_recipe(recipe: str, model_folder: Path, tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.txt").write_text(f"Text {number} tells of the number {number}. " * 20)
    command = [str(RECIPES / recipe), "--model", str(model_folder), "--data", str(tmp_path / "*.txt")]
    command += ["--out", str(tmp_path / "out"), "--steps", "2", "--replay-tokens", "4800"]
    process = Forked(command, {**os.environ, "OMP_NUM_THREADS": "1"})
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert list((tmp_path / "out" / "model").glob("*.safetensors"))


SCRIPTS = ("one_node.sh", "slurm.sh", "vllm_writer.sh", "skypilot.yaml", "ray_cluster.sh")
STANDS_FOR = {"MODEL": "smollm2", "DATA": "verilog", "OUT": "run", "TOKENS": "1000", "PROCESSES": "8", "WORKERS": "4"}
STANDS_FOR |= {"POOL": "--rows-per-shard 128", "TUNE": "--steps 5", "SHARD": "--shard", "WRITER": "--tensor-parallel 2"}
STANDS_FOR |= {"NO_CHECKPOINTS": "--checkpoint-every 0", "RESUME": "--resume"}


@pytest.mark.parametrize("recipe", SCRIPTS)
@pytest.mark.parametrize("verb", ["replay", "tune"])
def test_a_script_gives_commands_that_the_command_line_accepts(recipe: str, verb: str) -> None:
    text = (RECIPES / recipe).read_text(encoding="utf-8")
    if recipe.endswith(".yaml"):
        content = yaml.safe_load(text)
        assert content["resources"]["accelerators"] == "H100:8" and "pip install keeptune" in content["setup"]
        text = content["run"]
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    joined = text.replace("\\\n", " ").splitlines()
    (command,) = [
        line.partition(f"keeptune {verb} ")[2] for line in joined if re.match(rf"([a-z].* )?keeptune {verb} ", line)
    ]
    words = shlex.split(Template(command).substitute(STANDS_FOR))
    called, bound, _ = cli.app.parse_args([verb, *words], exit_on_error=False, print_error=False)
    assert called.__name__ == verb and bound.arguments["model"] == "smollm2"


@long
def test_the_job_says_what_it_needs_and_runs(model_folder: Path, tmp_path: Path) -> None:
    lines = (RECIPES / "hf_jobs.py").read_text(encoding="utf-8").splitlines()
    header = "\n".join(line.removeprefix("#").strip() for line in lines[1 : lines.index("# ///")])
    assert tomllib.loads(header) == {"requires-python": ">=3.11", "dependencies": ["keeptune"]}
    for number in range(8):
        (tmp_path / f"{number}.txt").write_text(f"Text {number} tells of the number {number}. " * 20)
    command = [str(RECIPES / "hf_jobs.py"), "--model", str(model_folder), "--data", str(tmp_path / "*.txt")]
    command += ["--out", str(tmp_path / "out"), "--steps", "2", "--tokens", "13000"]
    process = Forked(command, {**os.environ, "OMP_NUM_THREADS": "1"})
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert list((tmp_path / "out" / "model").glob("*.safetensors"))


@needs_bitsandbytes
def test_qlora(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, because the libraries take long to import."""
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text(f"Text {number} tells of the number {number}. " * 5)
    given = ["--model", str(model_folder), "--data", str(tmp_path / "*.txt"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", ["qlora.py", *given, "--steps", "1", "--replay-tokens", "128"])
    runpy.run_path(str(RECIPES / "qlora.py"), run_name="__main__")
    saved = {path.name for path in (tmp_path / "out" / "model").iterdir()}
    assert {"adapter_model.safetensors", "base_quantization.json"} <= saved


def test_the_workflow_runs_an_audit_that_the_command_line_accepts(tmp_path: Path) -> None:
    content = yaml.safe_load((RECIPES / "github_actions.yaml").read_text(encoding="utf-8"))
    job = content["jobs"]["audit"]
    steps: dict[str, dict[str, Any]] = {step["name"]: step for step in job["steps"] if "name" in step}
    words = shlex.split(Template(steps["Audit"]["run"]).substitute(job["env"]))
    assert words[:2] == ["keeptune", "audit"]
    command, bound, _ = cli.app.parse_args(words[1:], exit_on_error=False, print_error=False)
    given = bound.arguments
    assert command.__name__ == "audit"
    assert (given["base"], given["tuned"]) == (job["env"]["BASE"], (job["env"]["TUNED"],))
    settings = given["settings"]
    assert named_sources(settings.text)["notes"] == job["env"]["NOTES"]
    assert len(parse_bounds(given["fail_above"], settings.named())) == 5
    kept = steps["Keep the report"]["with"]["path"].split()
    written = {f"{settings.out}/report.json", f"{settings.out}/report.html"}
    assert {str(given["junit"]), str(given["markdown"]), *written} == set(kept)
    (tmp_path / "audit").mkdir()
    (tmp_path / given["markdown"]).write_text("| table |\n")
    page = tmp_path / "summary"
    for _ in range(2):
        shell = ["bash", "-e", "-c", steps["Show the table"]["run"]]
        subprocess.run(shell, cwd=tmp_path, env={**os.environ, "GITHUB_STEP_SUMMARY": str(page)}, check=True)
        (tmp_path / given["markdown"]).unlink(missing_ok=True)
    assert page.read_text() == "| table |\n"
    for name in ("Show the table", "Keep the report"):
        assert "cancelled" in steps[name]["if"]
