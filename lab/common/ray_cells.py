"""Runs cells side by side on Ray, from a laptop to a cluster whose machines share the folder.

Every cell is a process of its own, `run.py NAME --cell CELL`: a crash ends one cell, and the next run resumes it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from common.grid import LAB, Grid
from keeptune.errors import ConfigError, KeeptuneError
from keeptune.log import track

_LAST_LINES = 15


def run_on_ray(grid: Grid, out: Path, cells: list[str]) -> None:
    """Run the named cells, as many at once as Ray has processors (GPUs for the gpu grid).

    Raises:
        ConfigError: Ray is not installed.
        KeeptuneError: cells failed; the others are done.
    """
    try:
        import ray  # noqa: PLC0415 — an extra
    except ImportError as error:
        raise ConfigError("--ray needs Ray", "pip install --group sweep, or leave --ray out") from error
    ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
    # Workers on other machines have no such module to import.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    remote = ray.remote(**({"num_gpus": 1} if grid.size == "gpu" else {"num_cpus": 1}))(_run_cell)
    command = [sys.executable, str(LAB / "run.py"), grid.folder.name, "--size", grid.size, "--out", str(out), "--cell"]
    waiting = {remote.remote([*command, cell]): cell for cell in cells}
    failed = {}
    with track(f"lab {grid.folder.name}", len(cells), "cells") as progress:
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            cell = waiting.pop(done)
            if complaint := ray.get(done):
                failed[cell] = complaint
            progress.advance(note=cell)
    ray.shutdown()
    if failed:
        cell, complaint = next(iter(failed.items()))
        raise KeeptuneError(
            f"{len(failed)} of {len(cells)} cells failed; the first, {cell}, ended with:\n{complaint}",
            f"see one in full with: python lab/run.py {grid.folder.name} --size {grid.size} --cell {cell}",
        )


def _run_cell(command: list[str]) -> str:
    """Run one cell in a process of its own; its last lines if it failed, else nothing."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else "\n".join(done.stderr.splitlines()[-_LAST_LINES:])
