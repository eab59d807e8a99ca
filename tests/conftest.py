"""Fixtures of all tests: the tiny model, its tokenizer, and folders of their own."""

from __future__ import annotations

import gc
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the machine; the processes that they start inherit this.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from keeptune.log import log_to_terminal
from keeptune.replay.generate import sample_pool
from keeptune.replay.pool import ReplayPool
from tests.helpers.browser import Browser
from tests.helpers.models import make_model, make_tokenizer

# A shell starts what runs in the background with Ctrl-C ignored, and the processes of the tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
transformers_logging.disable_progress_bar()
log_to_terminal()
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


def pytest_collection_finish() -> None:
    """Trainers and audits collect garbage often: what the imports made is never any."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture
def model() -> LlamaForCausalLM:
    return make_model()


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """The tiny model and its tokenizer as a folder, the way a user would have it."""
    folder = tmp_path / "base"
    make_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _private_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test reads or writes the user's cache, or the folder that it is started in."""
    monkeypatch.setenv("KEEPTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    yield


@pytest.fixture
def pool(tmp_path: Path) -> ReplayPool:
    return sample_pool(
        make_model(), make_tokenizer(), tmp_path / "pool", tokens=20 * 16, length=16, dtype=torch.float32
    )


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One headless Chromium for all tests of pages: a tab to open them in."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed")
    tab = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield tab
    tab.close()
