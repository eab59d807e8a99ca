"""The certificate as a file: what is written is read, also as version 0.1 wrote it, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keeptune.errors import SourceError
from keeptune.stats import Interval
from keeptune.train.budget.certificate import FILE, Certificate, Verdict, describe, read_certificate

CERTIFICATE = Certificate(
    budget=0.02,
    kl=Interval(value=0.015, low=0.012, high=0.018, documents=64),
    verdict=Verdict.KEPT,
    tokens=8192,
    lambda_=1.5,
    step=100,
    scale=0.97,
    base="a1",
    seed=42,
    versions={"torch": "2.9"},
)


def written(folder: Path, content: Any) -> Path:
    (folder / FILE).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_a_certificate_comes_back(tmp_path: Path) -> None:
    content = CERTIFICATE.as_dict()
    assert list(content) == [
        *("budget", "kl", "verdict", "rule", "tokens", "lambda", "step", "scale", "base", "seed", "versions")
    ]
    assert read_certificate(written(tmp_path, content)) == CERTIFICATE
    said = describe(CERTIFICATE)
    assert "Budget of 0.02 nats per token: kept." in said
    assert "0.0150 [0.0120, 0.0180] on 64 rows" in said
    assert "scaled by 0.970" in said


def test_version_0_1_scaled_nothing_and_wrote_a_sentence(tmp_path: Path) -> None:
    content = {name: value for name, value in CERTIFICATE.as_dict().items() if name != "scale"}
    read = read_certificate(written(tmp_path, {**content, "verdict": "not sure: more held-out rows would tell"}))
    assert (read.verdict, read.scale) == (Verdict.INCONCLUSIVE, 1.0)
    assert "scaled" not in describe(read)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kl": 0.1}, "kl"),
        ({"kl": {"value": 0.1}}, "kl.low"),
        ({"kl": {"value": "0.1", "low": None, "high": None, "documents": 3}}, "kl.value"),
        ({"verdict": "fine"}, "verdict"),
        ({"verdict": None}, "verdict"),
        ({"lambda": [1]}, "lambda"),
        ({"budget": None}, "budget"),
        ({"versions": {"torch": 2}}, "versions.torch"),
    ],
)
def test_a_damaged_certificate_names_its_file_and_field(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    with pytest.raises(SourceError, match=rf"certificate\.json is damaged: .*{field}") as error:
        read_certificate(written(tmp_path, CERTIFICATE.as_dict() | change))
    assert "delete" in error.value.fix


@pytest.mark.parametrize("content", ["", "{", "7", "[]", "{}", '{"verdict": "kept"}', '{"verdict": NaN}'])
def test_a_file_that_is_no_certificate_is_told(tmp_path: Path, content: str) -> None:
    with pytest.raises(SourceError, match=r"certificate\.json is damaged"):
        read_certificate(written(tmp_path, content))
