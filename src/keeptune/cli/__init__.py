"""The command line: one short module a verb, imported only when the verb runs, so that help is instant."""

from __future__ import annotations

import sys
import traceback
from typing import NoReturn

from cyclopts import App, CycloptsError
from cyclopts.config import Dict

import keeptune
from keeptune.cli.help import APP, LAWS, LAWS_VERBS, VERBS
from keeptune.errors import BoundBroken, ConfigError, KeeptuneError
from keeptune.log import log_to_terminal, say
from keeptune.storage import storage_error

app = App(
    name="keeptune",
    help=APP,
    help_format="markdown",
    version=lambda: keeptune.__version__,
    help_on_error=False,
    suppress_keyboard_interrupt=False,
)
for verb, text in VERBS.items():
    app.command(f"keeptune.cli.{verb}:{verb}", name=verb, help=text)
laws = App(name="laws", help=LAWS)
for verb, text in LAWS_VERBS.items():
    laws.command(f"keeptune.cli.laws:{verb}", name=verb, help=text)
app.command(laws)


def main() -> NoReturn:
    """Run the command line.

    Exit codes: 0 done, 1 a bound of `keeptune audit` or on a forecast is broken (only that), 2 bad input or a failure
    that keeptune explains, 70 a crash, 130 stopped.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        _prepare_process()
        app.config = (Dict(_run_file(arguments), source="the run file", use_commands_as_keys=False),)
        app(arguments, result_action="return_value", exit_on_error=False)
    except (KeyboardInterrupt, Exception) as error:
        known = error if isinstance(error, KeeptuneError | CycloptsError | KeyboardInterrupt) else storage_error(error)
        if known is None or "--debug" in sys.argv:
            traceback.print_exc()
        sys.exit(_explain(known or error))
    sys.exit(0)


def _explain(error: BaseException) -> int:
    """Say what happened, unless it has been said; returns the exit code."""
    if isinstance(error, KeeptuneError):
        say(f"keeptune: {error.what}")
        say(f"  → {error.fix}")
    elif isinstance(error, KeyboardInterrupt):
        say("Stopped. Finished work is kept: the same command goes on from there (keeptune tune: add --resume).")
    codes = {KeyboardInterrupt: 130, BoundBroken: 1, KeeptuneError: 2, CycloptsError: 2}
    return next((code for kind, code in codes.items() if isinstance(error, kind)), 70)


def _run_file(arguments: list[str]) -> dict[str, object]:
    """The keys of the file named by --config, which are those of the flags; its [sft] table is read by the verb."""
    import tomllib
    from itertools import pairwise
    from pathlib import Path

    paths = [after for before, after in pairwise(arguments) if before == "--config"]
    paths += [argument.removeprefix("--config=") for argument in arguments if argument.startswith("--config=")]
    if not paths:
        return {}
    try:
        content = tomllib.loads(Path(paths[-1]).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no run file at {paths[-1]}", "check the path after --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"the run file {paths[-1]} cannot be read: {error}", "mend the TOML") from error
    return {key: value for key, value in content.items() if key != "sft"}


def _prepare_process() -> None:
    """Set what only a whole process can: quiet libraries, threads that wait well, an allocator that keeps its memory.

    OpenMP's threads spin while they wait for each other: fastest alone, and many times slower beside other work, which
    takes the cores that they wait for (`benchmarks/bench_busy.py`). glibc hands large blocks back to the system, which
    zeroes them anew at every training step.
    """
    import contextlib
    import ctypes
    import os
    import warnings

    log_to_terminal()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if _machine_is_busy():
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Libraries that deprecate each other's names have nothing to say to somebody who types a command.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers|trl|peft")
    if sys.platform != "linux":
        return
    trim_threshold, mmap_max = -1, -4
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def _machine_is_busy() -> bool:
    """Whether other work takes half of the cores or more: by the last minute's load, or now. Linux says."""
    import os
    from pathlib import Path

    load = Path("/proc/loadavg")
    if not load.is_file():
        return False
    minute, _, _, running, _ = load.read_text().split()
    others = int(running.partition("/")[0]) - 1  # this process runs too
    return max(float(minute), others) >= (os.cpu_count() or 1) / 2
