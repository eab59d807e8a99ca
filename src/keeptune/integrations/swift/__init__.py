"""ms-swift: `swift sft` with its own trainer, keeping what the model knew.

    swift sft --external_plugins "$(python -m keeptune.integrations.swift)" ...

trains with the default `KeepConfig`, or with that of the TOML file which the variable KEEPTUNE_SETTINGS names. For
settings in Python, name a file of your own instead:

    from keeptune import KeepConfig
    from keeptune.integrations.swift import register

    register(KeepConfig(lambda_=1.0, drift_every=10))

Readings of drift go to `<output_dir>/runs.jsonl`. ms-swift puts the folder of a plugin before all others that Python
imports from, so the plugin has a folder of its own: beside a file swift.py, `import swift` would find that file.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from keeptune.errors import ConfigError, SourceError
from keeptune.train.config import KeepConfig

PLUGIN = Path(__file__).with_name("plugin.py")
"""The file for `--external_plugins`."""
SETTINGS = "KEEPTUNE_SETTINGS"
"""The environment variable that names a TOML file with fields of `KeepConfig`."""

_TASK = "causal_lm"
_TRAINERS: dict[str, type[Any] | None] = {}


def register(keep: KeepConfig) -> None:
    """Let `swift sft` (and `swift pt`) take its own trainer with `KeepMixin` before it.

    Every other trainer of ms-swift refuses to start: it would train without replay.
    """
    from swift.trainers import Seq2SeqTrainer, TrainerFactory  # noqa: PLC0415

    from keeptune.integrations.settings import keeping  # noqa: PLC0415

    # ms-swift looks a class up by its name when a run needs it: __getattr__ answers for this module.
    for task in TrainerFactory.TRAINER_MAPPING:
        TrainerFactory.TRAINER_MAPPING[task] = f"{__name__}.{task}"
        _TRAINERS[task] = keeping(Seq2SeqTrainer, keep) if task == _TASK else None


def settings_from_file() -> KeepConfig:
    """The settings of the file that KEEPTUNE_SETTINGS names; the defaults where it is not set.

    Raises:
        SourceError: no such file, no TOML, or no such settings.
    """
    from keeptune.integrations.settings import KeepSettings  # noqa: PLC0415

    file = os.environ.get(SETTINGS)
    if file is None:
        return KeepConfig()
    try:
        return KeepSettings(**tomllib.loads(Path(file).read_text(encoding="utf-8"))).keep_config()
    except (OSError, ValueError) as error:
        raise SourceError(f"{SETTINGS} names {file}: {error}", "name a TOML file with fields of KeepConfig") from error


def __getattr__(name: str) -> Any:
    if name not in _TRAINERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    trainer = _TRAINERS[name]
    if trainer is None:
        raise ConfigError(
            f"keeptune's plugin adds replay to swift sft and swift pt, and this run is of the kind {name!r}",
            "leave the plugin out, or fine-tune with swift sft",
        )
    return trainer
