"""A run whose base is in shards from the first byte on, against the same run in one process."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from keeptune.train.readings import read_rows
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.processes import assert_equal, weights, write_texts
from tests.helpers.ranks import KEEPTUNE, end, launch, long, succeed

SETTINGS = ["--max-length", "32", "--replay-length", "16", "--replay-tokens", "640", "--drift-rows", "4", "--seed", "3"]
SETTINGS += ["--held-out-rows", "4", "--drift-every", "3", "--steps", "6"]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("task")
    make_model(tie=False).save_pretrained(folder / "base")
    make_tokenizer().save_pretrained(folder / "base")
    (folder / "texts").mkdir()
    write_texts(folder / "texts")
    (folder / "run.toml").write_text("[sft]\nbf16 = false\n")
    return [str(folder / "base"), str(folder / "texts"), "--config", str(folder / "run.toml"), *SETTINGS]


def rows(world: int) -> list[str]:
    return ["--batch-size", str(4 // world)]


@pytest.fixture(scope="module")
def alone(task: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    succeed(1, *KEEPTUNE, "tune", *task, *rows(1), "--out", out)
    return out


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=long)])
def test_in_shards_is_as_in_one_process(task: list[str], alone: Path, tmp_path: Path, world: int) -> None:
    succeed(
        world, *KEEPTUNE, "tune", *task, *rows(world), "--out", tmp_path / "run", "--shard", "--checkpoint-every", "0"
    )
    assert_equal(weights(alone), weights(tmp_path / "run"), 3e-6)
    read, expected = read_rows(tmp_path / "run" / "runs.jsonl"), read_rows(alone / "runs.jsonl")
    assert [row["step"] for row in read] == [row["step"] for row in expected]
    for row, other in zip(read, expected, strict=True):
        assert abs(row["KL"] - other["KL"]) < 1e-6 and abs(row["L_ft"] - other["L_ft"]) < 1e-5
    assert read[0]["KL"] < 1e-6 < read[-1]["KL"]
    before, after = load_file(Path(task[0]) / "model.safetensors"), weights(tmp_path / "run")
    assert all((after[name] != tensor).any() for name, tensor in before.items()), "norm and head are trained too"


def test_what_cannot_be_resumed_is_refused(task: list[str], tmp_path: Path) -> None:
    command = (*KEEPTUNE, "tune", *task, "--out", tmp_path / "run", "--shard")
    ((code, text),) = end(launch(1, *command))
    assert code == 2 and "transformers cannot resume a model that was spread" in " ".join(text.split())
    ((code, text),) = end(launch(1, *command, "--checkpoint-every", "0"))
    assert code == 2 and "is to be spread over processes, and there is one" in " ".join(text.split())
    assert not (tmp_path / "run").exists()


@long
@pytest.mark.parametrize(("optimizer", "bound"), [("adamw_torch", 3e-6), ("sgd", 2e-7)])
def test_the_difference_is_the_order_in_which_fp32_adds(
    task: list[str], tmp_path: Path, optimizer: str, bound: float
) -> None:
    """One process that adds two micro-batches differs as much. Adam divides each gradient by its own size, also where
    rounding is most of it; plain gradient descent, which does not, stays ten times closer."""
    config = tmp_path / "run.toml"
    config.write_text(f'[sft]\nbf16 = false\noptim = "{optimizer}"\n')
    command = [*KEEPTUNE, "tune", *task[:2], "--config", str(config), *SETTINGS, "--checkpoint-every", "0"]
    command += ["--learning-rate", "1e-3"]
    succeed(1, *command, *rows(1), "--out", tmp_path / "alone")
    succeed(1, *command, *rows(2), "--accumulate", "2", "--out", tmp_path / "added")
    succeed(2, *command, *rows(2), "--shard", "--out", tmp_path / "sharded")
    alone, added, sharded = (weights(tmp_path / name) for name in ("alone", "added", "sharded"))
    apart = {name: max(float((alone[key] - other[key]).abs().max()) for key in alone)
             for name, other in (("added", added), ("sharded", sharded))}  # fmt: skip
    print(optimizer, apart)
    assert 0 < apart["sharded"] < bound and apart["sharded"] < 4 * apart["added"]
