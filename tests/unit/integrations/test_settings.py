"""KeepConfig out of a host's file: every field, both spellings of λ, and refusals by name."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
from pydantic import ValidationError
from transformers import Trainer

from keeptune.integrations.settings import KeepSettings, keeping
from keeptune.train.config import KeepConfig
from keeptune.train.mixin import KeepMixin


def test_every_field_has_its_default() -> None:
    assert KeepSettings().keep_config() == KeepConfig()
    assert set(KeepSettings.model_fields) == {field.name for field in dataclasses.fields(KeepConfig)}


@pytest.mark.parametrize("name", ["lambda", "lambda_"])
def test_lambda_has_two_spellings(name: str) -> None:
    assert KeepSettings(**{name: 2.5}).keep_config().lambda_ == 2.5


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lamda": 1.0}, "lamda"),
        ({"lambda": "much"}, "lambda"),
        ({"lambda": -1.0}, "set it to 0 or more"),
        ({"objective": "mse"}, "unknown objective 'mse'; choose one of"),
        ({"drift_rows": 0}, "drift_rows is 0"),
        ({"budget": 0.01, "lambda": 0.0}, "a budget moves lambda"),
        ({"teacher": "teacher"}, "unknown teacher"),
        ({"replay_tokens": 1.5}, "replay_tokens"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_name(given: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        KeepSettings(**given)


def test_a_hosts_trainer_keeps_its_signature() -> None:
    trainer = keeping(Trainer, KeepConfig(lambda_=0.0))
    assert issubclass(trainer, KeepMixin) and issubclass(trainer, Trainer)
    assert inspect.signature(trainer) == inspect.signature(Trainer)
    assert trainer.__name__ == "KeepTrainer"
