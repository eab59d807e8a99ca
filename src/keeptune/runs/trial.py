"""TRL's loss tried on one batch before anything is written: not every model that loads can be trained by TRL."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from trl import SFTTrainer

from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.models.adapters import causal_model
from keeptune.models.adapters.merging import check_read_back

_TOLERANCE = 0.02


class TriedSFTTrainer(SFTTrainer):
    """`SFTTrainer` that computes its loss once when it is made, and leaves no trace of it.

    Raises:
        ConfigError: TRL cannot compute its loss on this model, or PEFT cannot read its adapter back once it is saved.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_read_back(self.model)
        trainer: Any = self
        metrics, tokens = copy.deepcopy(trainer._metrics), trainer._total_train_tokens
        was_training = self.model.training
        try:
            with torch.random.fork_rng(), torch.no_grad():
                self._try_loss()
        finally:
            trainer._metrics, trainer._total_train_tokens = metrics, tokens
            self.model.train(was_training)

    def _try_loss(self) -> None:
        inputs = self._prepare_inputs(self.data_collator([self.train_dataset[0]]))
        name = type(causal_model(self.model)).__name__
        try:
            for mode in (True, False):
                self.model.train(mode)
                with self.compute_loss_context_manager():
                    loss = SFTTrainer.compute_loss(self, self.model, dict(inputs))
        except Exception as error:
            balanced = "output_router_logits" in str(error) or "num_experts" in str(error)
            raise ConfigError(
                f"TRL's own loss fails on {name}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
                "set router_aux_loss_coef = 0 in [sft], to train without the router's auxiliary loss"
                if balanced
                else "train it with keeptune.KeepTrainer, or train another model",
            ) from error
        self._compare(inputs, float(loss), name)

    def _compare(self, inputs: Mapping[str, Tensor], loss: float, name: str) -> None:
        """Warn if TRL's loss is not that of the model's own predictions: TRL applies the output layer by itself."""
        if self.aux_loss_enabled or self.args.loss_type != "nll" or self.label_smoother is not None:
            return
        with self.compute_loss_context_manager():
            logits_BTV = self.model(**{key: value for key, value in inputs.items() if key != "labels"}).logits
        own = float(
            functional.cross_entropy(logits_BTV[:, :-1].float().flatten(0, 1), inputs["labels"][:, 1:].flatten())
        )
        if abs(loss - own) > _TOLERANCE * max(own, 1.0):
            logger.warning(
                f"TRL's loss on {name} is {loss:.3f} nats per token, and its own predictions give {own:.3f}: TRL leaves"
                " out part of what this architecture does around its output layer"
            )
