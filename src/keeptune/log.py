"""The logger "keeptune", and progress with time left: a bar on a terminal, a log line every few seconds elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

# rich is imported where it draws: `import keeptune` and what logs nothing need none of it.
if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

logger = logging.getLogger("keeptune")

_LINE_EVERY_SECONDS = 10.0
_SILENT_BELOW_SECONDS = 2.0


def console() -> Console:
    """The console for messages to the user: standard error, so that standard output stays for results."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def say(message: str) -> None:
    """Print one message of the command line on standard error."""
    console().print(message, markup=False, soft_wrap=True)


class _TerminalHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def log_to_terminal() -> None:
    """Show the logger's messages from INFO up on standard error, as the command line does."""
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not any(isinstance(handler, _TerminalHandler) for handler in logger.handlers):
        logger.addHandler(_TerminalHandler())


def duration(seconds: float) -> str:
    """`75` → `1m15s`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


class Task:
    """One piece of work of `total` units. Call `advance` as units get done; `note` is shown beside the bar."""

    def __init__(self, label: str, total: int, unit: str, bar: Progress | None, shown: bool = True) -> None:
        self.label, self.total, self.unit, self.note, self.shown = label, total, unit, "", shown
        self.done = self._done_before = 0
        self._draw = partial(bar.update, bar.add_task(label, total=total, note="")) if bar else None
        self._start = self._last_line = time.monotonic()

    def advance(self, units: int = 1, note: str | None = None) -> None:
        """Count `units` more as done; `note` replaces the text beside the bar."""
        self.done += units
        if note is not None:
            self.note = note
        if self._draw is not None:
            self._draw(completed=self.done, note=self.note)
            return
        now = time.monotonic()
        if not self.shown or now - self._last_line < _LINE_EVERY_SECONDS:
            return
        self._last_line = now
        rate = (self.done - self._done_before) / (now - self._start)
        left = duration((self.total - self.done) / rate) if rate else "?"
        shown = f"  {self.note}" if self.note else ""
        logger.info(f"{self.label}: {self.done}/{self.total} {self.unit}, {left} left{shown}")

    def skip(self, units: int) -> None:
        """Count `units` that were done before, by an interrupted run: they do not enter the estimate of time left."""
        self.done += units
        self._done_before = self.done
        if self._draw is not None:
            self._draw(completed=self.done)

    def finish(self) -> None:
        """Log a last line if the work was long enough to notice."""
        elapsed = time.monotonic() - self._start
        if self.shown and elapsed >= _SILENT_BELOW_SECONDS:
            logger.info(f"{self.label}: {self.done}/{self.total} {self.unit} in {duration(elapsed)}")


@contextmanager
def track(label: str, total: int, unit: str, *, shown: bool = True) -> Iterator[Task]:
    """Show progress of `total` units of work while the block runs; of several processes one shows it."""
    if not shown or not sys.stderr.isatty():
        task = Task(label, total, unit, None, shown)
        yield task
        task.finish()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = "{task.description}", BarColumn(), MofNCompleteColumn(), unit, TimeRemainingColumn()
    with Progress(*columns, "{task.fields[note]}", console=console()) as bar:
        yield Task(label, total, unit, bar)
