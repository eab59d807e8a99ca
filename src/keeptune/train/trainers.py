"""The trainers that people use, keeping. Any other subclass of transformers' `Trainer` takes the same line."""

from __future__ import annotations

from transformers import Trainer
from trl import DPOTrainer, GRPOTrainer, SFTTrainer

from keeptune.train.mixin import KeepMixin


class KeepSFTTrainer(KeepMixin, SFTTrainer):
    """`trl.SFTTrainer` with `keep=KeepConfig(...)`: CE(task) + λ · R(replay); see `KeepMixin`."""


class KeepTrainer(KeepMixin, Trainer):
    """`transformers.Trainer` with `keep=KeepConfig(...)`; see `KeepMixin`."""


class KeepDPOTrainer(KeepMixin, DPOTrainer):
    """`trl.DPOTrainer` with `keep=KeepConfig(...)`: the preference loss + λ · R(replay); see `KeepMixin`."""


class KeepGRPOTrainer(KeepMixin, GRPOTrainer):
    """`trl.GRPOTrainer` with `keep=KeepConfig(...)`: the policy loss + λ · R(replay); see `KeepMixin`."""
