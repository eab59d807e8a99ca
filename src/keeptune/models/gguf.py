"""Loading as keeptune wants it: quiet, complete or not at all, with the libraries' errors in one line each."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from keeptune.errors import KeeptuneError, SourceError
from keeptune.log import logger
from keeptune.models.wheels import build_once, cache_folder


def gguf_folder(sha256: str) -> Path:
    """Where the conversion of the GGUF file with this checksum is kept."""
    return cache_folder() / "models" / f"gguf-{sha256}"


def converted_gguf(gguf: Path, sha256: str) -> Path:
    """Convert a GGUF file, known by its checksum, to a folder of safetensors in the cache, unless it is there.

    Raises:
        SourceError: the file is damaged, incomplete, or of an architecture that the library does not know.
    """

    def convert(folder: Path) -> None:
        logger.info(f"converting {gguf.name} to safetensors, once (about 15 s per 100 MB)")
        # The bar of this conversion is drawn by tqdm itself and heeds no setting of the library.
        with quiet(), readable(str(gguf)), redirect_stderr(io.StringIO()):
            parent, name = str(gguf.parent), gguf.name
            tokenizer = AutoTokenizer.from_pretrained(parent, gguf_file=name, trust_remote_code=False)
            loaded, report = AutoModelForCausalLM.from_pretrained(
                parent, gguf_file=name, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
            )
            require_complete(str(gguf), report)
            # The loaded model still counts as quantised and as living in its GGUF file, and such a model refuses
            # to be saved: the same weights go into a plain one.
            config = loaded.config
            del config.quantization_config
            config._name_or_path = ""
            model = type(loaded)(config)
            model.load_state_dict(loaded.state_dict())
            model.tie_weights()
        with quiet():
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)

    return build_once(gguf_folder(sha256), convert)


def require_complete(source: str, report: dict[str, Any]) -> None:
    """Refuse a checkpoint that lacks weights: the library would fill them in at random and only warn."""
    lacking = sorted(str(key) for key in (*report["missing_keys"], *report["mismatched_keys"]))
    if lacking:
        raise SourceError(
            f"{source} lacks {len(lacking)} of its weights, {lacking[0]} among them",
            "name a complete causal language model",
        )


@contextmanager
def readable(source: str) -> Iterator[None]:
    """Turn what the libraries raise for files they cannot read into one `SourceError` that names `source`."""
    try:
        yield
    except KeeptuneError:
        raise
    # For damaged files the libraries raise nearly every built-in kind, tokenizers a bare Exception.
    except Exception as error:
        raise SourceError(
            f"{source} cannot be loaded: {first_line(error)}",
            "name a causal language model that the installed transformers knows, with all of its files",
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' bars and advice off the terminal, except the bar of a download, which can take long."""
    bars, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    hub_bars = not are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()
    if hub_bars:
        enable_progress_bars()
    # Not even errors: each is raised as well, and told once by whoever catches it.
    transformers_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
        if not hub_bars:
            disable_progress_bars()
