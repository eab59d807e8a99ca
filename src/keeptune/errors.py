"""Every error that keeptune raises on purpose.

    KeeptuneError
    ├── SourceError      (ValueError)           a model or data set cannot be found, read or used
    │   └── SourceNotFound (FileNotFoundError)
    ├── ConfigError      (ValueError)           settings that contradict each other or the model
    │   └── UnsupportedModel                    a model or adapter whose predictions keeptune cannot keep
    ├── PoolError        (ValueError)           a replay pool is damaged or unfinished
    │   └── PoolMismatch                        a replay pool was written by another base model
    ├── OutputExists     (FileExistsError)      the output folder already holds something
    ├── StorageError     (OSError)              the disk is full, or a path cannot be used
    ├── Diverged         (ArithmeticError)      the loss became NaN or infinite
    ├── BoundBroken      (RuntimeError)         a run will surely end beyond a bound
    ├── WorkerLost       (RuntimeError)         a worker of Ray failed, or workers died one after the other
    └── Interrupted      (KeyboardInterrupt)    stopped by the user; says how to continue

Each carries one line of what happened and one line of what to do.
"""

from __future__ import annotations


class KeeptuneError(Exception):
    """Root of all errors raised on purpose. `str(error)` is what happened, `error.fix` is what to do about it."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.add_note(f"What to do: {fix}")  # shown in tracebacks, where no command line prints the fix

    def __str__(self) -> str:
        return self.what

    def __reduce__(self) -> tuple[type[KeeptuneError], tuple[str, str]]:
        return type(self), (self.what, self.fix)  # Ray brings errors from one process to another


class SourceError(KeeptuneError, ValueError):
    """A model or a data set that cannot be read or used."""


class SourceNotFound(SourceError, FileNotFoundError):
    """No model, file or column of that name."""


class ConfigError(KeeptuneError, ValueError):
    """Settings that contradict each other or do not fit the model."""


class UnsupportedModel(ConfigError):
    """A model or an adapter whose predictions keeptune cannot compute, or whose base it cannot reach."""


class PoolError(KeeptuneError, ValueError):
    """A replay pool that is damaged or unfinished."""


class PoolMismatch(PoolError):
    """A replay pool that another base model wrote."""


class OutputExists(KeeptuneError, FileExistsError):
    """An output folder that already holds something keeptune must not overwrite unasked."""


class StorageError(KeeptuneError, OSError):
    """The disk is full, or the system refuses a path."""


class Diverged(KeeptuneError, ArithmeticError):
    """The loss became NaN or infinite."""


class BoundBroken(KeeptuneError, RuntimeError):
    """A run that was ended early, for it will surely end beyond a bound that was given."""


class WorkerLost(KeeptuneError, RuntimeError):
    """A worker of Ray that failed, or workers that died one after the other."""


class Interrupted(KeeptuneError, KeyboardInterrupt):
    """Stopped by the user with all finished work kept."""
