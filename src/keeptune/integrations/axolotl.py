"""Axolotl plugin: fine-tune with Axolotl's own trainer and keep what the model knew.

    plugins:
      - keeptune.integrations.axolotl.KeepPlugin
    keep:
      lambda: 1.0

`keep` takes every field of `KeepConfig`, and `audit` (true, false, or fields of `AuditSettings`). Readings of drift go
to `<output_dir>/runs.jsonl`; when Axolotl has saved the model, an audit of it goes to `<output_dir>/audit`.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from axolotl.core.builders import HFCausalTrainerBuilder
from axolotl.integrations.base import BasePlugin
from pydantic import BaseModel, model_validator

from keeptune.audit.api import audit
from keeptune.errors import ConfigError, KeeptuneError
from keeptune.integrations.settings import KeepSettings, keeping
from keeptune.log import logger
from keeptune.train.mixin import KeepMixin

# Each changes what one forward pass sees, or which loss is computed, so that replay rows would be read wrongly.
_UNSUPPORTED = ("rl", "reward_model", "process_reward_model")
_ONE_ONLY = ("context_parallel_size", "tensor_parallel_size", "expert_parallel_size")


class AxolotlKeepSettings(KeepSettings):  # type: ignore[misc, valid-type]
    """`keep:` in Axolotl's YAML."""

    audit: bool | dict[str, Any] = True
    """Whether the saved model is audited against its base, or fields of `AuditSettings` for that audit."""


class KeepArgs(BaseModel):
    """What the plugin adds to Axolotl's configuration."""

    keep: AxolotlKeepSettings | None = None

    @model_validator(mode="after")
    def _check_host(self) -> KeepArgs:
        if self.keep is None:
            return self
        asked = [name for name in _UNSUPPORTED if getattr(self, name, None)]
        asked += [name for name in _ONE_ONLY if (getattr(self, name, None) or 1) > 1]
        if asked:
            raise ValueError(
                f"keep works with supervised fine-tuning only, and {', '.join(asked)} is set; leave it out"
            )
        return self


class KeepPlugin(BasePlugin):  # type: ignore[misc]
    """Adds the replay term to Axolotl's trainer, whichever it chooses for the configuration."""

    def __init__(self) -> None:
        super().__init__()
        self._choosing = False
        self._trained = False

    def get_input_args(self) -> str:
        """Name of the pydantic model that joins Axolotl's own."""
        return f"{__name__}.{KeepArgs.__name__}"

    def get_trainer_cls(self, cfg: Any) -> type[Any] | None:
        """The class that Axolotl or another plugin would take, with `KeepMixin` before it."""
        if self._choosing or cfg.keep is None:
            return None
        self._choosing = True  # Axolotl asks its plugins again, and this one must not answer
        try:
            parent = HFCausalTrainerBuilder._get_trainer_cls(SimpleNamespace(cfg=cfg))
        finally:
            self._choosing = False
        return keeping(parent, _settings(cfg).keep_config())

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """Refuse a trainer that another plugin chose first: it would train without replay.

        Raises:
            ConfigError: such a trainer.
        """
        if cfg.keep is not None and not isinstance(trainer, KeepMixin):
            raise ConfigError(
                f"another plugin chose the trainer {type(trainer).__name__}, which trains without replay",
                "name keeptune.integrations.axolotl.KeepPlugin first under plugins",
            )

    def post_train(self, cfg: Any, model: Any) -> None:
        """Remember that training ended well: what follows is also called after a failure."""
        self._trained = True

    def post_train_unload(self, cfg: Any) -> None:
        """Audit the saved model against its base, on the main process."""
        if cfg.keep is None or not self._trained or int(os.environ.get("RANK", "0")) != 0:
            return
        asked = _settings(cfg).audit
        if asked is False:
            return
        out = Path(cfg.output_dir)
        if cfg.revision_of_model:
            logger.warning(f"no audit: the base is pinned to revision {cfg.revision_of_model}; run keeptune audit")
            return
        try:
            audit(cfg.base_model, out, out=out / "audit", **(asked if isinstance(asked, dict) else {}))
        except KeeptuneError as error:
            # The model is trained and saved: its run must not count as failed.
            logger.error(f"no audit of {out}: {error.what}; {error.fix}")
        else:
            logger.info(f"audit: {out / 'audit' / 'report.html'}")


def _settings(cfg: Any) -> AxolotlKeepSettings:
    return AxolotlKeepSettings(**cfg.keep)
