"""The engine that asks vLLM in a process of its own: requests and rows, and what happens when that process is not well.

A package `vllm` of a few lines stands in for the real one, which `make vllm-tests` runs.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from keeptune.errors import ConfigError, PoolError
from keeptune.replay.engines import ENGINES, EngineMaker
from keeptune.replay.engines.vllm import PYTHON, VLLM, VLLMEngine
from keeptune.replay.generate import sample_pool
from keeptune.replay.pool import ReplayPool
from tests.helpers.cli import run
from tests.helpers.forked import Forked
from tests.helpers.models import make_model, make_tokenizer

# Counts on from the last token of the opening by the row's seed; `dies` of the model's config ends it at a request.
_PACKAGE = """
import json, os, pathlib, sys
from types import SimpleNamespace

class SamplingParams(SimpleNamespace):
    pass

class LLM:
    def __init__(self, **settings):
        pathlib.Path("started.json").write_text(json.dumps(settings))
        if os.environ.get("NO_START"):
            print("no memory for the cache", file=sys.stderr)
            sys.exit(3)

    def generate(self, prompts, how, use_tqdm):
        if os.environ.get("DIES"):
            os.kill(os.getpid(), 9)
        assert not use_tqdm
        exact = ("temperature", "top_p", "top_k", "ignore_eos", "detokenize")
        with open("asked.jsonl", "a") as asked:
            asked.write(json.dumps([len(prompts), {name: getattr(how[0], name) for name in exact}]) + "\\n")
        return [
            SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(
                (prompt["prompt_token_ids"][-1] + one.seed * step) % 200 for step in range(1, 1 + one.max_tokens)
            ))]) for prompt, one in zip(prompts, how, strict=True)
        ]
"""


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A python that has the stand-in, started in the test's folder."""
    package = tmp_path / "packages" / "vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(_PACKAGE)
    found = tmp_path / "python"
    found.write_text(f'#!/bin/sh\nPYTHONPATH={package.parent} exec {sys.executable} "$@"\n')
    found.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return str(found)


def make_engine(python: str, **settings: Any) -> VLLMEngine:
    return VLLMEngine(make_model(), dtype=torch.float32, python=python, **settings)


def test_rows_go_on_from_their_openings_each_with_its_own_seed(python: str, tmp_path: Path) -> None:
    done: list[int] = []
    engine = make_engine(python, on_token=done.append, temperature=0.5)
    opening = [[3, 4], [5, 6], [7, 8]]
    rows = engine.sample(3, 5, opening, seed=1)
    assert rows.shape == (3, 7) and rows.dtype == torch.int64 and rows[:, :2].tolist() == opening
    assert len({tuple((row[2:] - row[1]).tolist()) for row in rows}) == 3
    assert torch.equal(rows, engine.sample(3, 5, opening, seed=1))
    assert not torch.equal(rows, engine.sample(3, 5, opening, seed=2))
    assert done == [15, 15, 15]
    exact = '{"temperature": 0.5, "top_p": 1.0, "top_k": 0, "ignore_eos": true, "detokenize": false}'
    assert (tmp_path / "asked.jsonl").read_text() == f"[3, {exact}]\n" * 3


def test_it_is_started_once_and_again_for_longer_rows(python: str, tmp_path: Path) -> None:
    engine = make_engine(python, options={"tensor_parallel_size": 2})
    engine.sample(1, 5, [1], seed=1)
    first = engine._process
    engine.sample(1, 4, [1], seed=1)
    assert engine._process is first
    engine.sample(1, 9, [1], seed=1)
    assert engine._process is not first
    started = (tmp_path / "started.json").read_text()
    for part in (
        '"max_model_len": 10',
        '"dtype": "float32"',
        '"tensor_parallel_size": 2',
        '"generation_config": "vllm"',
    ):
        assert part in started


def test_the_process_ends_with_the_engine_and_its_folder_goes(python: str) -> None:
    engine = make_engine(python)
    engine.sample(1, 2, [1], seed=1)
    process, folder = engine._process, engine._folder
    assert process is not None
    del engine
    assert process.poll() == 0 and not folder.exists()


def test_it_ends_when_the_process_that_started_it_is_killed(python: str, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, pathlib, sys, torch\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[4])!r})\n"
        "from keeptune.replay.engines.vllm import VLLMEngine\n"
        "from tests.helpers.models import make_model\n"
        f"engine = VLLMEngine(make_model(), dtype=torch.float32, python={python!r})\n"
        "engine.sample(1, 2, [1], seed=1)\n"
        "pathlib.Path('worker').write_text(str(engine._process.pid))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    parent = Forked([str(script)], os.environ)
    _, error = parent.communicate(timeout=300)
    assert parent.returncode == -signal.SIGKILL, error
    worker = int((tmp_path / "worker").read_text())
    deadline = time.monotonic() + 20
    while psutil.pid_exists(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(worker)


@pytest.mark.parametrize(("variable", "told"), [("NO_START", "code 3: no memory for the cache"), ("DIES", "code -9")])
def test_its_end_is_told_with_the_end_of_its_log(
    python: str, monkeypatch: pytest.MonkeyPatch, variable: str, told: str
) -> None:
    engine = make_engine(python)
    monkeypatch.setenv(variable, "1")
    with pytest.raises(PoolError, match=told):
        engine.sample(1, 2, [1], seed=1)
    monkeypatch.delenv(variable)
    assert engine.sample(1, 2, [1], seed=1).shape == (1, 3)


def test_a_pool_goes_on_after_vllm_was_killed(python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keeptune.replay.write.follows_base", lambda *_: True)  # the stand-in only counts
    made = VLLM(python=python)
    monkeypatch.setattr(VLLM, "rows_that_fit", lambda *_: 4)

    def write(folder: str, rows: int) -> ReplayPool:
        how: dict[str, Any] = {"tokens": rows * 6, "length": 6, "dtype": torch.float32, "start": [5, 7], "engine": made}
        return sample_pool(make_model(), make_tokenizer(), tmp_path / folder, **how)

    whole = write("whole", 12)
    assert whole.settings.engine == "vllm"
    write("part", 4)
    monkeypatch.setenv("DIES", "1")
    with pytest.raises(PoolError):
        write("part", 12)
    monkeypatch.delenv("DIES")
    assert write("part", 12).shards == whole.shards


def test_its_rows_are_held_against_the_base(python: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="do not follow its predictions"):
        how: dict[str, Any] = {"tokens": 2048, "length": 64, "dtype": torch.float32, "opening": "start"}
        sample_pool(make_model(), make_tokenizer(), tmp_path / "pool", engine=VLLM(python=python), **how)


def test_where_no_vllm_is_found_the_error_says_how_to_get_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PYTHON, raising=False)
    monkeypatch.setattr("keeptune.replay.engines.vllm.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    for python, told in ((None, "vLLM is not installed here"), ("none/python", "no python none/python")):
        with pytest.raises(ConfigError, match=told) as refused:
            make_engine(python)  # type: ignore[arg-type]
        assert "pip install vllm" in refused.value.fix
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\n")
    uv.chmod(0o755)
    assert make_engine(None).command == [str(uv), "run", "--script"]  # type: ignore[arg-type]


def test_it_is_an_engine_with_a_name() -> None:
    assert isinstance(ENGINES["vllm"], EngineMaker)
    assert ENGINES["vllm"].rows_that_fit(make_model(), 64, torch.float32) == 1024


@pytest.mark.parametrize(
    "flags",
    [
        ["--vllm-python", "v/bin/python"],
        ["--tensor-parallel", "2"],
        ["--engine", "vllm", "--tensor-parallel", "0"],
        ["--engine", "vllm", "--text", "pydoc"],
        ["--engine", "sglang"],
    ],
)
def test_flags_that_do_not_fit_are_refused(flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "replay", "smollm2", "--out", tmp_path / "pool", *flags) == 2
