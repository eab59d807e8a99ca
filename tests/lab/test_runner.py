"""Cells run once, wait for each other where they share, and belong to one process at a time."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from common import runner
from common.grid import Grid
from keeptune.errors import ConfigError

GRID = """
[experiment]
columns = ["method", "seed"]

[settings]
depth = 2
of_method.kl.depth = 5

[smoke]
method = ["plain", "kl"]
seed = [0, 1]
steps = 3
reading.target = 0.5
"""


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    (tmp_path / "grid.toml").write_text(GRID)
    return Grid.read(tmp_path, "smoke")


def keep_seed(cell: dict[str, Any], home: Path) -> dict[str, Any]:
    return {"found": cell["seed"] + cell["depth"]}


def test_a_grid_has_a_cell_for_every_value_of_its_axes(grid: Grid) -> None:
    assert list(grid.cells) == ["plain-seed0", "plain-seed1", "kl-seed0", "kl-seed1"]
    assert grid.cells["kl-seed1"] == {"depth": 5, "method": "kl", "seed": 1, "steps": 3}
    # What all cells have alike, and what results are read at: no cell has that.
    assert grid.shared == {"steps": 3, "target": 0.5}


def test_every_cell_runs_once(grid: Grid) -> None:
    ran: list[str] = []

    def run(cell: dict[str, Any], home: Path) -> dict[str, Any]:
        ran.append(home.name)
        return keep_seed(cell, home)

    runs = grid.folder / "runs" / "smoke"
    runner.run_missing(grid, runs, run, part="1/2")
    assert ran == ["plain-seed1", "kl-seed1"]
    assert runner.missing(grid, runs) == ["plain-seed0", "kl-seed0"]
    runner.run_missing(grid, runs, run, only="kl-seed0")
    runner.run_missing(grid, runs, run)
    assert ran == ["plain-seed1", "kl-seed1", "kl-seed0", "plain-seed0"]
    done = runner.finished(grid, runs)
    assert {name: kept["found"] for name, kept in done.items()} == {
        "plain-seed0": 2,
        "plain-seed1": 3,
        "kl-seed0": 5,
        "kl-seed1": 6,
    }
    assert done["kl-seed1"]["cell"] == grid.cells["kl-seed1"]
    assert done["kl-seed1"]["versions"]["torch"]


def test_a_cell_in_other_hands_is_left_alone(grid: Grid) -> None:
    runs = grid.folder / "runs"
    with runner.alone(runs / "plain-seed0") as free:
        assert free
        runner.run_missing(grid, runs, keep_seed)
    assert runner.missing(grid, runs) == ["plain-seed0"]


def test_what_cells_share_is_made_once_while_others_wait(tmp_path: Path) -> None:
    made, started = [], threading.Event()

    def make(folder: Path) -> None:
        made.append(folder)
        started.set()
        waiting.join(0.2)
        assert waiting.is_alive(), "the other should wait for the folder"
        (folder / "model.txt").write_text("weights")

    shared = tmp_path / "shared" / "base-seed0"

    def take() -> None:
        started.wait()
        found.append((runner.once(shared, make) / "model.txt").read_text())

    found: list[str] = []
    waiting = threading.Thread(target=take)
    waiting.start()
    runner.once(shared, make)
    waiting.join()
    assert (len(made), found) == (1, ["weights"])


def test_an_unknown_cell_is_refused(grid: Grid) -> None:
    with pytest.raises(ConfigError, match="no cell of the smoke grid is called seed7") as caught:
        runner.run_missing(grid, grid.folder / "runs", keep_seed, only="seed7")
    assert "plain-seed0, plain-seed1" in caught.value.fix


def test_the_csv_has_the_columns_of_the_grid_first(grid: Grid, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runner.run_missing(grid, runs, keep_seed, only="kl-seed1")
    runner.write_results(grid, runs, tmp_path, lambda cell, kept, home: [{"found": kept["found"]}])
    assert (tmp_path / "results_smoke.csv").read_text() == "method,seed,found\nkl,1,6\n"
    assert '"kl-seed1"' in (tmp_path / "results_smoke.json").read_text()
