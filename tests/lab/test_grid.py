"""Cells run once, wait for each other where they share, and belong to one process at a time."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "lab"))

import grid

from keeptune.errors import ConfigError

GRID = """
[settings]
depth = 2

[smoke]
method = ["plain", "kl"]
seed = [0, 1]
steps = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "grid.toml").write_text(GRID)
    return tmp_path


def keep_seed(cell: dict[str, Any], home: Path) -> dict[str, Any]:
    return {"found": cell["seed"] + cell["depth"]}


def test_every_cell_runs_once(folder: Path) -> None:
    ran: list[str] = []

    def run(cell: dict[str, Any], home: Path) -> dict[str, Any]:
        ran.append(home.name)
        return keep_seed(cell, home)

    grid.run_missing(folder, "smoke", "1/2", run)
    assert ran == ["plain-seed1", "kl-seed1"]
    runs = folder / "runs" / "smoke"
    assert grid.missing(folder, "smoke", runs) == ["plain-seed0", "kl-seed0"]
    grid.run_missing(folder, "smoke", "0/1", run, only="kl-seed0")
    grid.run_missing(folder, "smoke", "0/1", run)
    assert ran == ["plain-seed1", "kl-seed1", "kl-seed0", "plain-seed0"]
    done = grid.finished(folder, "smoke")
    assert [name for name, _, _ in done] == ["plain-seed0", "plain-seed1", "kl-seed0", "kl-seed1"]
    assert [kept["found"] for _, kept, _ in done] == [2, 3, 2, 3]
    made_with = grid.sources(folder, "smoke", runs)["kl-seed1"]
    assert made_with["cell"] == {"depth": 2, "method": "kl", "seed": 1, "steps": 3}
    assert made_with["versions"]["torch"]


def test_a_cell_in_other_hands_is_left_alone(folder: Path) -> None:
    with grid.alone(folder / "runs" / "smoke" / "plain-seed0") as free:
        assert free
        grid.run_missing(folder, "smoke", "0/1", keep_seed)
    assert grid.missing(folder, "smoke", folder / "runs" / "smoke") == ["plain-seed0"]


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
        found.append((grid.once(shared, make) / "model.txt").read_text())

    found: list[str] = []
    waiting = threading.Thread(target=take)
    waiting.start()
    grid.once(shared, make)
    waiting.join()
    assert (len(made), found) == (1, ["weights"])


def test_an_unknown_cell_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no cell of the smoke grid is called seed7") as caught:
        grid.run_missing(folder, "smoke", "0/1", keep_seed, only="seed7")
    assert "plain-seed0, plain-seed1" in caught.value.fix


def test_a_csv_comes_back_as_it_went(tmp_path: Path) -> None:
    rows = [{"run": "a", "seed": 0, "loss": 1.5, "note": None}, {"run": "b,c", "seed": 1, "loss": 1e-7, "note": "x"}]
    grid.write_csv(tmp_path / "results.csv", rows)
    assert grid.read_csv(tmp_path / "results.csv") == rows


def test_a_grid_done_in_part_leaves_the_whole_ones_rows_alone(tmp_path: Path) -> None:
    table, rows = tmp_path / "results.csv", [{"run": f"cell {number}", "loss": 0.5} for number in range(3)]
    grid.keep(table, rows, {"cell 0": {}}, whole=False)
    grid.keep(table, rows[:2], {}, whole=False)
    assert len(grid.read_csv(table)) == 3
    grid.keep(table, [*rows, {"run": "cell 3", "loss": 0.5}], {}, whole=False)
    assert len(grid.read_csv(table)) == 4


def test_a_whole_grid_takes_the_place_of_a_longer_one(tmp_path: Path) -> None:
    table, rows = tmp_path / "results.csv", [{"run": f"cell {number}", "loss": 0.5} for number in range(3)]
    grid.keep(table, rows, {}, whole=True)
    grid.keep(table, rows[:2], {}, whole=True)
    assert grid.read_csv(table) == rows[:2]
