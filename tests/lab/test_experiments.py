"""Every experiment runs at smoke size and survives a kill, and its committed files agree with each other."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

import figures
import verdicts
from common.grid import LAB, Grid
from common.papers import papers
from common.results import read_csv, results
from common.runner import run_missing, write_results
from tests.helpers.forked import Forked

EXPERIMENTS = sorted(grid.parent.name for grid in LAB.glob("*/grid.toml"))
WITH_RESULTS = [name for name in EXPERIMENTS if (LAB / name / "results.csv").is_file()]


def start(name: str, out: Path, *arguments: str) -> Forked:
    command = [str(LAB / "run.py"), name, "--size", "smoke", "--out", str(out), *arguments]
    # The experiments share a cache of their own, not the user's.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "KEEPTUNE_CACHE": str(out.parent / "cache")}
    return Forked(command, environment)


def run(name: str, out: Path, *arguments: str) -> tuple[int | None, str]:
    process = start(name, out, *arguments)
    _, error = process.communicate(timeout=600)
    return process.returncode, error


def run_here(name: str, out: Path) -> None:
    """As `run` at size smoke, without a process of its own, which would import everything again."""
    grid, runs = Grid.read(LAB / name, "smoke"), out / "runs" / "smoke"
    run_cell, cell_rows = grid.code()
    run_missing(grid, runs, run_cell)
    write_results(grid, runs, out, cell_rows)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each experiment's smoke run, made when it is first asked for."""

    class Runs(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            self[name] = tmp_path_factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patch:
                # The experiments share a cache of their own, not the user's.
                patch.setenv("KEEPTUNE_CACHE", str(self[name].parent / "cache"))
                run_here(name, self[name])
            return self[name]

    return Runs()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_smoke(name: str, smoke: dict[str, Path]) -> None:
    out = smoke[name]
    rows = read_csv(out / "results_smoke.csv")
    cells = list(Grid.read(LAB / name, "smoke").cells)
    assert len(rows) >= len(cells)
    assert list(json.loads((out / "results_smoke.json").read_text())) == cells
    figures.draw(name, out / "results_smoke.csv")
    check_figure(out / "figure_smoke")


def test_a_second_run_has_nothing_to_do(smoke: dict[str, Path]) -> None:
    code, error = run("regression_1d", smoke["regression_1d"])
    assert code == 0, error
    assert "all 2 cells of the smoke grid are done" in error


@pytest.mark.parametrize("name", WITH_RESULTS)
def test_the_figure_draws_from_the_committed_rows(name: str, tmp_path: Path, smoke: dict[str, Path]) -> None:
    shutil.copy(LAB / name / "results.csv", tmp_path)
    figures.draw(name, tmp_path / "results.csv")
    check_figure(tmp_path / "figure")
    committed, fresh = read_csv(tmp_path / "results.csv"), read_csv(smoke[name] / "results_smoke.csv")
    # Rows made before the target of reading moved to the grid have it as a column.
    assert [column for column in committed[0] if column != "target"] == list(fresh[0])
    for picture in ("figure.svg", "figure.png"):
        assert (LAB / name / picture).is_file(), "run: make figures"


def test_the_command_draws_from_other_rows(tmp_path: Path) -> None:
    shutil.copy(LAB / "regression_1d" / "results.csv", tmp_path)
    command = [str(LAB / "figures.py"), "regression_1d", "--rows", str(tmp_path / "results.csv")]
    process = Forked(command, os.environ)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    check_figure(tmp_path / "figure")


def check_figure(picture: Path) -> None:
    assert "<svg" in picture.with_suffix(".svg").read_text()[:2000]
    assert picture.with_suffix(".png").stat().st_size > 10_000


def test_the_target_is_read_from_the_grid_not_from_the_rows(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    table.write_text("case,target,replay_rows\nstandard,9.9,1\n")
    (row,) = results(LAB / "pool_size", table)
    assert (row["target"], row["replay_rows"], row["batch"]) == (3.7, 1, 16)
    assert all("target" not in cell for name in EXPERIMENTS for cell in Grid.read(LAB / name, "cpu").cells.values())


def test_the_verdicts_are_those_of_the_committed_rows() -> None:
    found, tables = verdicts.collect()
    kept, of_papers = json.loads((LAB / "verdicts.json").read_text()), papers()
    assert [(line["claim"], line["verdict"]) for line in found + verdicts.untested(of_papers)] == [
        (line["claim"], line["verdict"]) for line in kept
    ], "run: make verdicts"
    assert verdicts.as_tables(found, of_papers) in (LAB / "README.md").read_text(), "run: make verdicts"
    assert {line["experiment"] for line in found} == set(WITH_RESULTS)
    for page, table in tables.items():
        assert table in page.read_text(), f"{page}: run: make verdicts"


def test_a_killed_cell_goes_on_from_its_last_task(tmp_path: Path, smoke: dict[str, Path]) -> None:
    whole = smoke["toy_continual"]
    process = start("toy_continual", tmp_path)
    done = tmp_path / "runs" / "smoke" / "none-seed0" / "1-reversal"
    deadline = time.monotonic() + 240
    while not done.is_dir():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "results_smoke.csv").exists()
    made = done.stat().st_mtime_ns
    code, error = run("toy_continual", tmp_path)
    assert code == 0, error
    assert done.stat().st_mtime_ns == made, "a finished task was done again"
    uninterrupted, resumed = (without_time(folder / "results_smoke.csv") for folder in (whole, tmp_path))
    assert resumed == uninterrupted


def without_time(table: Path) -> list[dict[str, object]]:
    return [{key: value for key, value in row.items() if key != "cell_seconds"} for row in read_csv(table)]


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_it_says_what_to_install(tmp_path: Path) -> None:
    code, error = run("regression_1d", tmp_path, "--ray")
    assert code == 2
    assert "pip install --group sweep" in error


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_ray_gives_the_same_rows(tmp_path: Path, smoke: dict[str, Path]) -> None:
    code, error = run("regression_1d", tmp_path, "--ray")
    assert code == 0, error
    assert (tmp_path / "results_smoke.csv").read_text() == (smoke["regression_1d"] / "results_smoke.csv").read_text()
