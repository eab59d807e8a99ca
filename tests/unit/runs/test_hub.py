"""The Hub's conventions: the top of a card by huggingface_hub's own checks, ids refused early, and an upload."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData

from keeptune.errors import ConfigError
from keeptune.runs.card import card
from keeptune.runs.hub import base_id, check_hub
from keeptune.runs.settings import TuneSettings
from tests.helpers.hub import Hub, hub, online

__all__ = ["hub"]
ROW = {"P": 10, "step": 5, "L_ft": 2.0, "L_ft_on": "held-out", "L_f": 1.5, "L_f_base": 1.0, "KL": 0.5, "versions": {}}


def settings(**changed: Any) -> TuneSettings:
    return TuneSettings(**{"model": "org/base", "data": "org/set:train", "out": "run", **changed})


def head(of: TuneSettings, **row: Any) -> ModelCardData:
    """What the Hub's client reads at the top of the card; it raises where a field is malformed."""
    text = card(of, {**ROW, **row}, {**ROW, **row})
    return ModelCard(text, ignore_metadata_errors=False).data


def test_a_card_says_where_the_model_is_from_and_what_was_measured() -> None:
    read = head(settings(license="mit"))
    assert (read.base_model, read.license, read.datasets) == ("org/base", "mit", ["org/set"])
    assert (read.library_name, read.pipeline_tag, read.tags) == ("transformers", "text-generation", ["keeptune", "sft"])
    assert read.eval_results is not None
    measured = {result.metric_type: (result.dataset_name, result.metric_value) for result in read.eval_results}
    own = "the base's own text"
    assert measured == {
        "cross_entropy": ("org/set:train", 2.0),
        "kl_divergence": (own, 0.5),
        "forgetting": (own, 0.5),
    }
    assert [result.dataset_type for result in read.eval_results] == ["org/set", "text", "text"]


@pytest.mark.parametrize("row", [{"L_ft": None}, {"L_ft": float("nan")}])
def test_what_was_not_measured_is_left_out(row: dict[str, Any]) -> None:
    read = head(settings(), **row)
    assert read.eval_results is not None
    assert [result.metric_type for result in read.eval_results] == ["kl_divergence", "forgetting"]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"model": "org/base"}, "org/base"),
        ({"model": "gpt2"}, "gpt2"),
        ({"model": "smollm2"}, "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ({"model": "FOLDER"}, None),
        ({"model": "FOLDER", "base_model": "org/base"}, "org/base"),
        ({"model": "models/base-q4.gguf"}, None),
        ({"model": "a/b/c"}, None),
        ({"model": "/srv/base"}, None),
        ({"model": "FOLDER/base"}, None),
    ],
)
def test_base_model_is_an_id_or_is_left_out(changed: dict[str, Any], named: str | None, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    given = {key: value.replace("FOLDER", str(tmp_path)) for key, value in changed.items()}
    assert base_id(settings(**given)) == named
    assert head(settings(**given)).base_model == named


def test_the_license_is_that_of_the_bases_card_unless_one_is_given(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    folder = str(tmp_path)
    assert head(settings(model=folder)).license == "apache-2.0"
    assert head(settings(model=folder, license="mit")).license == "mit"
    assert head(settings(model="smollm2")).license == "apache-2.0"
    (tmp_path / "README.md").write_text("---\n: [\n---\n")
    assert head(settings(model=folder)).license is None


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"push_to_hub": "a/b/c"}, "--push-to-hub 'a/b/c' is not an id"),
        ({"push_to_hub": "me/it's"}, "is not an id"),
        ({"base_model": "./base"}, "--base-model './base' is not an id"),
        ({"model": "FOLDER", "push_to_hub": "me/tuned"}, "--push-to-hub uploads a card that names the base's id"),
    ],
)
def test_ids_are_refused_before_training(changed: dict[str, Any], says: str, tmp_path: Path) -> None:
    given = {key: value.replace("FOLDER", str(tmp_path)) for key, value in changed.items()}
    with pytest.raises(ConfigError, match=says):
        check_hub(settings(**given))
    check_hub(settings(model=str(tmp_path), base_model="org/base", push_to_hub="me/tuned"))


PUSH = """
from pathlib import Path
from keeptune.errors import SourceError
from keeptune.runs.hub import push
push(Path("model"), "me/tuned")
try:
    push(Path("missing"), "me/tuned")
except SourceError as error:
    print(error.fix)
"""


UNREACHABLE = """
from pathlib import Path
from keeptune.errors import SourceError
from keeptune.runs.hub import push
try:
    push(Path("model"), "me/tuned")
except SourceError as error:
    print(error.what)
"""


def test_a_hub_that_cannot_be_reached_is_said(hub: Hub, tmp_path: Path) -> None:
    environment = {**online(hub, tmp_path), "HF_TOKEN": "hf_test", "HF_ENDPOINT": "http://127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", UNREACHABLE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("model could not be uploaded to me/tuned: ")


def test_the_model_is_uploaded_with_its_card(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text(card(settings(), ROW, ROW))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"\x00" * 64)
    environment = {**online(hub, tmp_path), "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PUSH], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not hub.unknown
    uploaded = hub.root / "models" / "me" / "tuned"
    for name in ("README.md", "model.safetensors"):
        assert (uploaded / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
    assert "base_model: org/base" in hub.cards[0]
    assert "hf upload me/tuned missing" in done.stdout
