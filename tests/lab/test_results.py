"""A csv comes back as it was written, and a part of a grid does not replace a whole one."""

from __future__ import annotations

from pathlib import Path

from common import results

ROWS = [{"run": f"cell {number}", "loss": 0.5} for number in range(3)]


def test_a_csv_comes_back_as_it_went(tmp_path: Path) -> None:
    rows = [{"run": "a", "seed": 0, "loss": 1.5, "note": None}, {"run": "b,c", "seed": 1, "loss": 1e-7, "note": "x"}]
    results.write_csv(tmp_path / "results.csv", rows)
    assert results.read_csv(tmp_path / "results.csv") == rows


def test_a_grid_done_in_part_leaves_the_whole_ones_rows_alone(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    results.keep(table, ROWS, {}, whole=False)
    results.keep(table, ROWS[:2], {}, whole=False)
    assert len(results.read_csv(table)) == 3
    results.keep(table, [*ROWS, {"run": "cell 3", "loss": 0.5}], {}, whole=False)
    assert len(results.read_csv(table)) == 4


def test_a_whole_grid_takes_the_place_of_a_longer_one(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    results.keep(table, ROWS, {}, whole=True)
    results.keep(table, ROWS[:2], {}, whole=True)
    assert results.read_csv(table) == ROWS[:2]
