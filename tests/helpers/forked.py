"""Commands in processes of their own, forked from one that has imported the libraries.

Each is a real process, with its own environment, folder, signals and exit code. Only the imports are shared, which take
eight seconds of a core each time; launchers such as torchrun start their processes anew.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from threading import Lock

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["keeptune.runs.run", "keeptune.audit.run", "keeptune.plan.run", "keeptune.cli.replay"])

# Starting one polls all others, and of two threads that poll one process only the first reads its exit code.
_POLLING = Lock()


class Forked:
    """A command, with the part of `subprocess.Popen` that tests use; its stderr is kept, its stdout is not."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """`command` is what follows `python`: a script with arguments, or `-m` with a module and arguments."""
        handle, name = tempfile.mkstemp(suffix=".stderr")
        os.close(handle)
        self._error = Path(name)
        given = (list(command), dict(environment), str(Path.cwd()), name)
        self._process = _CONTEXT.Process(target=_run, args=given, daemon=True)
        with _POLLING:
            self._process.start()

    @property
    def pid(self) -> int:
        pid = self._process.pid
        assert pid is not None
        return pid

    @property
    def sentinel(self) -> int:
        """What becomes ready when it ends, for `multiprocessing.connection.wait`."""
        return self._process.sentinel

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        """The exit code, minus the number of the signal that ended it, or None while it runs."""
        with _POLLING:
            return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        """Wait for the end; returns what it wrote to stderr."""
        wait([self._process.sentinel], timeout)
        assert self.poll() is not None, f"still running after {timeout} s"
        return None, self._error.read_text(encoding="utf-8", errors="replace")


def _run(command: list[str], environment: dict[str, str], folder: str, error: str) -> None:
    for stream, path in ((1, os.devnull), (2, error)):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(handle, stream)
        os.close(handle)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    import torch  # noqa: PLC0415 - imported already, in the process that this one is forked from

    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", "1")))
    if command[0] == "-m":
        sys.argv = [command[1], *command[2:]]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(command)
        sys.path.insert(0, str(Path(command[0]).parent))
        runpy.run_path(command[0], run_name="__main__")
