"""A run's folder: who may write to it, and when it is given back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from keeptune.errors import BoundBroken, ConfigError, Diverged, Interrupted, OutputExists
from keeptune.runs.settings import TuneSettings
from keeptune.train.readings import FILE, read_rows
from keeptune.workspace import Workspace

RUN_FILE = "run.json"
# Of no influence on the weights: a resume may change it.
_CHANGEABLE = ("stop_if_forecast", "laws", "save_dtype", "base_model", "license", "push_to_hub")
# As version 0.1 wrote them.
_EARLIER_NAMES = {"drift_every": "meter_every", "drift_rows": "meter_rows", "drift_text": "meter_text"}
_ADDED = {"load_in_4bit": False, "load_in_8bit": False, "append_eos": False}


def workspace(out: Path) -> Workspace:
    """The folder of a run."""
    return Workspace(
        folder=out, marker=RUN_FILE, kind="run", renew="start the run anew (--overwrite), or choose another --out"
    )


def check_folder(out: Path, settings: TuneSettings, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that the run must not write to. Changes nothing."""
    if not workspace(out).claimed:
        return
    if resume:
        values = dataclasses.asdict(settings)
        changed = [name for name in workspace(out).changed(values, _EARLIER_NAMES, _ADDED) if name not in _CHANGEABLE]
        if changed:
            raise ConfigError(
                f"the run in {out} was started with another {', '.join(changed)}",
                "resume with the settings it was started with, or choose another --out",
            )
    elif overwrite and settings.replay and Path(settings.replay).resolve().is_relative_to(out.resolve()):
        raise ConfigError(
            f"--overwrite would delete the replay pool {settings.replay}", "move the pool out of the run's folder first"
        )
    elif not overwrite:
        raise OutputExists(
            f"{out} already contains a run",
            "add --resume to continue it, --overwrite to replace it, or choose another --out",
        )


def claim_folder(out: Path, settings: TuneSettings, *, resume: bool, day: date) -> None:
    """Make the folder this run's, begun on a day: empty but for run.json, unless the run is resumed."""
    if resume and workspace(out).claimed:
        return
    workspace(out).clear()
    workspace(out).claim(dataclasses.asdict(settings), day=day)


@contextmanager
def released_if_it_fails(out: Path, *, resume: bool) -> Iterator[None]:
    """Empty and give back a folder that the block claims, if it fails before the first step.

    What the user may go on with stays: a run that was interrupted, that diverged, or whose disk was full.
    """
    was_there, was_claimed = out.exists(), resume and workspace(out).claimed
    try:
        yield
    except (Interrupted, BoundBroken, Diverged, OSError):
        raise
    except Exception:
        started = any(row["step"] > 0 for row in read_rows(out / FILE)) or any(out.glob("checkpoint-*"))
        if not was_claimed and not started and workspace(out).claimed:
            workspace(out).clear()
            if not was_there:
                out.rmdir()
        raise
