"""A table [sft]: the committed table has every field of SFTConfig, and what it says is refused is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from trl import SFTConfig
from trl import __version__ as trl_version

from keeptune.errors import ConfigError
from keeptune.runs.settings import TuneSettings

ROOT = Path(__file__).parents[3]
ROWS = [json.loads(line) for line in (ROOT / "docs" / "sft-config.jsonl").read_text(encoding="utf-8").splitlines()]
# What depends on the machine, or shows only once the model is there.
ELSEWHERE = ("package", "install", "GPU", "CPU", "Ampere", "[sft] router_aux", "[sft] pad_token", "[sft] loss_type")
WINDOW = not trl_version.startswith("1.16")


def made(sft: dict[str, Any], **flags: Any) -> SFTConfig:
    settings = TuneSettings(model="base", data="text", out="out", max_length=32, sft=sft, **flags)
    return settings.sft_config(bf16=False)


@pytest.mark.skipif(WINDOW, reason="other versions of TRL have other fields")
def test_every_field_is_in_the_table() -> None:
    """A field that a later TRL adds fails here: give it a value in tests/sft_config/values.py, then make sft-config."""
    assert {row["field"] for row in ROWS} == {field.name for field in dataclasses.fields(SFTConfig)}
    assert {row["result"] for row in ROWS} == {"works", "refused"}


@pytest.mark.skipif(WINDOW, reason="other versions of TRL have other fields")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_the_table_refuses_is_refused_with_its_words_before_anything_is_loaded() -> None:
    refused = [row for row in ROWS if row["result"] == "refused" and not any(word in row["why"] for word in ELSEWHERE)]
    assert len(refused) > 50
    found = []
    for row in refused:
        try:
            made(row["sft"])
            found.append((row["field"], "taken", ""))
        except ConfigError as error:
            found.append((row["field"], error.what, error.fix))
    assert found == [(row["field"], row["why"], row["fix"]) for row in refused]


@pytest.mark.parametrize(
    ("sft", "type_", "expected"),
    [
        ({"learning_rate": "1e-4"}, "str", "a number"),
        ({"max_steps": 10.5}, "float", "a whole number"),
        ({"max_steps": True}, "bool", "a whole number"),
        ({"packing": "yes"}, "str", "true or false"),
        ({"packing": 1}, "int", "true or false"),
        ({"max_length": "64"}, "str", "a whole number"),
        ({"max_length": "64", "packing": True}, "str", "a whole number"),
        ({"lr_scheduler_kwargs": 3}, "int", "a table or text"),
        ({"report_to": 3}, "int", "text or a list"),
        ({"model_init_kwargs": ["float32"]}, "list", "a table or text"),
        ({"parallelism_config": {"tp_size": 2}}, "dict", "Python object"),
        ({"hub_token": 12345}, "int", "text"),
    ],
)
def test_a_value_of_another_type_is_told_with_the_fields_name(sft: dict[str, Any], type_: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=rf"{next(iter(sft))} is of type {type_}") as caught:
        made(sft)
    assert expected in caught.value.fix


def test_a_secret_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match="hub_token") as caught:
        made({"hub_token": "hf_secret"})
    assert "hf_secret" not in caught.value.what + caught.value.fix


@pytest.mark.parametrize(
    ("flags", "sft", "told"),
    [
        ({"steps": 5}, {"max_steps": 9}, "--steps"),
        ({"steps": 5}, {"num_train_epochs": 3}, "--steps"),
        ({"learning_rate": 1e-3}, {"learning_rate": 1e-5}, "--learning-rate"),
        ({"batch_size": 4}, {"per_device_train_batch_size": 2}, "--batch-size"),
        ({"accumulate": 4}, {"gradient_accumulation_steps": 2}, "--accumulate"),
        ({"checkpoint_every": 7}, {"save_steps": 9}, "--checkpoint-every"),
        ({"seed": 1}, {"seed": 2}, "--seed"),
    ],
)
def test_a_flag_and_a_field_that_say_two_things_are_refused(
    flags: dict[str, Any], sft: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        made(sft, **flags)
    assert told in caught.value.what
    assert made({}, **flags)


@pytest.mark.parametrize(
    ("sft", "told"),
    [
        ({"group_by_lenght": True}, "group_by_lenght"),
        ({"evaluation_strategy": "steps"}, "write eval_strategy"),
        ({"max_sequence_length": 9}, "max_sequence_length"),
    ],
)
def test_a_field_of_no_version_or_an_earlier_one_is_refused(sft: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match="no field of TRL's SFTConfig") as caught:
        made(sft)
    assert told in caught.value.what + caught.value.fix


def test_what_both_say_alike_is_taken() -> None:
    assert made({"max_steps": 5, "seed": 42, "output_dir": "out"}, steps=5).max_steps == 5
    assert (made({"max_length": 32}).max_length, made({"max_length": None}).max_length) == (32, None)
