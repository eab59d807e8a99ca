"""Fine-tune a language model and keep what it knew.

from keeptune import KeepConfig, KeepSFTTrainer     # a drop-in for trl.SFTTrainer; also DPO, GRPO and plain Trainer
from keeptune import KeepMixin                      # class KeepX(KeepMixin, X): any other trainer
from keeptune import sample_pool, keep_tuning       # the same method for a training loop of your own
from keeptune import measure, audit                 # the drift of any tuned model from its base
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keeptune.audit.api import audit
    from keeptune.audit.meter import Drift, measure
    from keeptune.data.documents import load_documents
    from keeptune.errors import KeeptuneError
    from keeptune.models.disk.saving import save_model
    from keeptune.models.loading import load_model, load_tokenizer
    from keeptune.replay.generate import sample_pool, text_pool
    from keeptune.replay.pool import ReplayPool
    from keeptune.report.document import Report
    from keeptune.train.config import KeepConfig
    from keeptune.train.loop import keep_tuning
    from keeptune.train.mixin import KeepMixin
    from keeptune.train.trainers import KeepDPOTrainer, KeepGRPOTrainer, KeepSFTTrainer, KeepTrainer

    __version__: str

__all__ = [
    "Drift",
    "KeepConfig",
    "KeepDPOTrainer",
    "KeepGRPOTrainer",
    "KeepMixin",
    "KeepSFTTrainer",
    "KeepTrainer",
    "KeeptuneError",
    "ReplayPool",
    "Report",
    "audit",
    "keep_tuning",
    "load_documents",
    "load_model",
    "load_tokenizer",
    "measure",
    "sample_pool",
    "save_model",
    "text_pool",
]

_HOMES = {
    "Drift": "keeptune.audit.meter",
    "KeepConfig": "keeptune.train.config",
    "KeepDPOTrainer": "keeptune.train.trainers",
    "KeepGRPOTrainer": "keeptune.train.trainers",
    "KeepMixin": "keeptune.train.mixin",
    "KeepSFTTrainer": "keeptune.train.trainers",
    "KeepTrainer": "keeptune.train.trainers",
    "KeeptuneError": "keeptune.errors",
    "ReplayPool": "keeptune.replay.pool",
    "Report": "keeptune.report.document",
    "keep_tuning": "keeptune.train.loop",
    "load_documents": "keeptune.data.documents",
    "load_model": "keeptune.models.loading",
    "load_tokenizer": "keeptune.models.loading",
    "measure": "keeptune.audit.meter",
    "sample_pool": "keeptune.replay.generate",
    "save_model": "keeptune.models.disk.saving",
    "text_pool": "keeptune.replay.generate",
}


def __getattr__(name: str) -> Any:
    if name == "audit":
        return import_module("keeptune.audit")  # the package, which can be called
    if name == "__version__":
        from importlib.metadata import version  # takes as long as all else of this import

        return version("keeptune")
    if name not in _HOMES:
        raise AttributeError(f"module 'keeptune' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
