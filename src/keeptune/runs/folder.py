"""A run's folder is given back where the run fails before its first step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from keeptune.errors import BoundBroken, Diverged, Interrupted
from keeptune.train.readings import FILE, read_rows
from keeptune.workspace import Workspace


@contextmanager
def released_if_it_fails(workspace: Workspace, *, resume: bool) -> Iterator[None]:
    """Empty and give back a folder that the block claims, if it fails before the first step.

    What the user may go on with stays: a run that was interrupted, that diverged, or whose disk was full.
    """
    folder = workspace.folder
    was_there, was_claimed = folder.exists(), resume and workspace.claimed
    try:
        yield
    except (Interrupted, BoundBroken, Diverged, OSError):
        raise
    except Exception:
        started = any(row["step"] > 0 for row in read_rows(folder / FILE)) or any(folder.glob("checkpoint-*"))
        if not was_claimed and not started and workspace.claimed:
            workspace.clear()
            if not was_there:
                folder.rmdir()
        raise
