"""However a run is cut up, its model is that of the plain run: through the command line, torchrun and accelerate."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from keeptune.train.readings import read_rows
from tests.helpers.launchers import ACCELERATE, FSDP_ON_CPU, KEEPTUNE, PYTHON, TORCHRUN, Finished, Run, execute
from tests.helpers.models import make_model, make_tokenizer

CHECKPOINTING = "gradient_checkpointing = true\n"
PACKING = "packing = true\n"
RUNS = {
    "plain": Run([*PYTHON, *KEEPTUNE], (4, 1)),
    "accumulated": Run([*PYTHON, *KEEPTUNE], (2, 2)),
    "checkpointed": Run([*PYTHON, *KEEPTUNE], (4, 1), CHECKPOINTING),
    "two processes": Run([*TORCHRUN, *KEEPTUNE], (1, 2), CHECKPOINTING),
    "FSDP2": Run([*ACCELERATE, *FSDP_ON_CPU], (1, 2), CHECKPOINTING),
    "recipe without a GPU": Run([*ACCELERATE, "--num_processes", "1", *KEEPTUNE], (4, 1)),
    "packed": Run([*PYTHON, *KEEPTUNE], (4, 1), PACKING),
    "packed, two processes": Run([*TORCHRUN, *KEEPTUNE], (1, 2), PACKING),
}
ADAPTERS: dict[str, list[str]] = {"full": [], "lora": ["--lora", "4"]}
ONLY_FULL = ("recipe without a GPU", "packed", "packed, two processes")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Future[Finished]]]:
    """All runs, two at a time: most of each is the import of libraries."""
    folder = tmp_path_factory.mktemp("entry_points")
    base, texts = folder / "base", folder / "texts"
    make_model().save_pretrained(base)
    make_tokenizer().save_pretrained(base)
    texts.mkdir()
    for number in range(8):
        (texts / f"{number}.txt").write_text(f"Document {number} speaks of the number {number}. " * 12)
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield {
            (name, adapter): pool.submit(
                execute, run, folder / f"{adapter} {name}".replace(" ", "-"), flags, base, texts
            )
            for adapter, flags in ADAPTERS.items()
            for name, run in RUNS.items()
            if adapter == "full" or name not in ONLY_FULL
        }
        pool.shutdown(cancel_futures=True)


def assert_same(one: Finished, other: Finished, tolerance: float) -> None:
    left, right = one.weights, other.weights
    # Gathered from shards, a tied head is written out beside the embedding.
    right_only = right.keys() - left.keys()
    assert left.keys() <= right.keys()
    assert right_only <= {"lm_head.weight"}
    assert all(torch.equal(right[name], right["model.embed_tokens.weight"]) for name in right_only)
    assert max(float((left[name] - right[name]).abs().max()) for name in left) <= tolerance
    rows = [read_rows(run.folder / "runs.jsonl") for run in (one, other)]
    assert [row["step"] for row in rows[1]] == [0, 1, 2, 3, 6]
    for before, after in zip(*rows, strict=True):
        assert before["task_tokens"] == after["task_tokens"]
        assert before["P"] == after["P"]
        for key in ("L_ft", "KL", "L_f"):
            assert before[key] == pytest.approx(after[key], abs=1e-5)


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", ["accumulated", "checkpointed", "two processes", "FSDP2"])
def test_the_model_is_that_of_the_plain_run(
    runs: dict[tuple[str, str], Future[Finished]], name: str, adapter: str
) -> None:
    plain, other = runs["plain", adapter].result(), runs[name, adapter].result()
    assert_same(plain, other, tolerance=1e-6)
    assert read_rows(other.folder / "runs.jsonl")[-1]["KL"] > 1e-5


def test_packed_rows_on_two_processes(runs: dict[tuple[str, str], Future[Finished]]) -> None:
    packed, two = runs["packed", "full"].result(), runs["packed, two processes", "full"].result()
    assert_same(packed, two, tolerance=1e-6)
    first = [read_rows(run.folder / "runs.jsonl")[0] for run in (packed, runs["plain", "full"].result())]
    assert first[0]["L_ft"] == pytest.approx(first[1]["L_ft"], abs=1e-6)
    assert abs(first[0]["KL"]) < 1e-9


def test_fsdp_shards_and_says_so_where_it_does_not(runs: dict[tuple[str, str], Future[Finished]]) -> None:
    sharded, whole = runs["FSDP2", "full"].result(), runs["recipe without a GPU", "full"].result()
    assert "FSDP is asked for but not used" not in sharded.message
    assert "FSDP is asked for but not used" in whole.message
    assert_same(runs["plain", "full"].result(), whole, tolerance=0.0)
