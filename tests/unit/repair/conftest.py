"""Models on disk, and one pair with its texts, which tests share: they only read."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from keeptune.repair.pair import Pair, check_names, load_pair
from keeptune.repair.reading import Reader
from keeptune.repair.settings import RepairSettings
from keeptune.repair.texts import write_texts
from tests.helpers.repair import save_base, save_lora, save_tuned


class Models(NamedTuple):
    """Folders of the base, of a model with all weights moved, and of a LoRA."""

    base: Path
    tuned: Path
    lora: Path

    def settings(self, out: Path, tuned: Path | None = None, **more: object) -> RepairSettings:
        models = {"base": str(self.base), "tuned": str(tuned or self.tuned), "out": str(out)}
        small = {"rows": 12, "length": 20, "tuning_steps": 4, "batch_size": 2, "tuning_rank": 2}
        given = {"budget": 0.01, "method": ["interpolate"], **models, **small}
        return RepairSettings(**{**given, **more})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    home = tmp_path_factory.mktemp("models")
    base = save_base(home / "base")
    return Models(base=base, tuned=save_tuned(home / "tuned"), lora=save_lora(base, home / "lora"))


class World(NamedTuple):
    """A pair, its settings, and what reads it."""

    settings: RepairSettings
    pair: Pair
    reader: Reader


@pytest.fixture(scope="module")
def world(models: Models, tmp_path_factory: pytest.TempPathFactory) -> World:
    settings = models.settings(tmp_path_factory.mktemp("world") / "repair", method=["interpolate", "tune"])
    pair = load_pair(check_names(settings.base, settings.tuned), settings.folder / "cache", torch.device("cpu"))
    base_text, tuned_text = write_texts(pair, settings)
    return World(settings, pair, Reader(model=pair.model, base_text=base_text, tuned_text=tuned_text, task=None))
