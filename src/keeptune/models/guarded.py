"""Calls into transformers and the hub: without their progress bars, complete or refused, errors in one line each."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as transformers_logging

from keeptune.errors import KeeptuneError, SourceError


def require_complete(source: str, report: Mapping[str, Iterable[object]]) -> None:
    """Raise `SourceError` if weights are missing or have another shape.

    transformers would initialize them at random and only warn.
    """
    missing = sorted(str(key) for key in (*report["missing_keys"], *report["mismatched_keys"]))
    if missing:
        raise SourceError(
            f"{source} lacks {len(missing)} of its weights, {missing[0]} among them",
            "name a complete causal language model",
        )


@contextmanager
def readable(source: str, quantization: str | None = None) -> Iterator[None]:
    """Turn what the libraries raise for files they cannot read into one `SourceError` that names `source`.

    `quantization` is the method of a quantized checkpoint, which may need a package or a device that is not here.
    """
    try:
        yield
    except KeeptuneError:
        raise
    # For damaged files the libraries raise nearly every built-in kind, tokenizers a bare Exception.
    except Exception as error:
        if quantization is not None:
            raise SourceError(
                f"{source} is quantized with {quantization} and cannot be loaded here: {first_line(error)}",
                "install what the message names, use a machine that has it, or name the unquantized model",
            ) from error
        raise SourceError(
            f"{source} cannot be loaded: {first_line(error)}",
            "name a causal language model that the installed transformers knows, with all of its files",
        ) from error


class _Once(logging.Filter):
    """Lets each message of a logger through once."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        new = record.msg not in self.heard
        self.heard.add(record.msg)
        return new


# bitsandbytes warns of its cast to float16 at every product of an 8-bit model, hundreds of lines a step.
logging.getLogger("bitsandbytes.autograd._functions").addFilter(_Once())


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the error's type if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the libraries' progress bars and warnings, except the bar of a download, which can take long."""
    bars, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    hub_bars = not are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()
    if hub_bars:
        enable_progress_bars()
    # Logged errors are hidden too: each one is also raised, and reported once by the caller.
    transformers_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
        if not hub_bars:
            disable_progress_bars()
