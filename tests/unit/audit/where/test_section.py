"""The section on where drift sits: every number a finding, the worst passages of all texts, and its view."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keeptune.audit.section import Loaded
from keeptune.audit.settings import AuditSettings
from keeptune.audit.where.layers import LayerProfile
from keeptune.audit.where.reading import read_text
from keeptune.audit.where.section import WhereDrift
from keeptune.audit.where.view import WhereDetails, layers_in_words
from keeptune.report.codec import to_json
from keeptune.report.document import SectionRecord, Status
from keeptune.report.finding import Finding, found
from keeptune.report.terminal import print_views
from keeptune.stats import Interval
from keeptune.workspace import Steps
from tests.helpers.models import make_model, make_tokenizer


def make_rows(name: str, documents: int = 12) -> list[dict[str, Any]]:
    tokenizer = make_tokenizer()
    texts = [f"{name} {number} is about the number {number}, " * 2 for number in range(documents)]
    ids = [[0, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in texts]
    return [{"input_ids": one, "labels": one, "document": f"{name} {at}"} for at, one in enumerate(ids)]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    rows = {name: make_rows(name) for name in ("self", "[red]x[/]")}
    return Loaded(
        base=make_model(),
        second=make_model(seed=1),
        tokenizer=make_tokenizer(),
        rows=rows,
        sources={name: name for name in rows},
        vocabulary=None,
        steps=Steps(tmp_path_factory.mktemp("where") / "steps"),
    )


@pytest.fixture(scope="module")
def measured(loaded: Loaded) -> Any:
    settings = AuditSettings(base="base", tuned=("tuned",))
    return WhereDrift(settings).measure(loaded)


def test_every_class_and_layer_is_a_finding(loaded: Loaded, measured: Any) -> None:
    by = {(one.subject, one.part, one.measure): one for one in measured.findings}
    for name in loaded.rows:
        for group, classes in read_text(loaded, name).where.classes.items():
            for one in classes:
                part = f"{group}: {one.name}"
                assert by[name, part, "class_kl"].interval == one.kl
                assert by[name, part, "class_token_share"].value == one.token_share
                assert by[name, part, "class_kl_share"].value == one.kl_share
    layers = [one for one in measured.findings if one.measure == "layer_repaired"]
    assert [one.part for one in layers] == ["layer 0", "layer 1"]
    assert all(one.verdict is None for one in measured.findings)


def test_the_worst_passages_of_all_texts_come_first(loaded: Loaded, measured: Any) -> None:
    passages = measured.details.passages
    means = [passage.mean_kl for passage in passages]
    assert means == sorted(means, reverse=True)
    assert means[0] == max(read_text(loaded, name).where.passages[0].mean_kl for name in loaded.rows)
    assert {passage.text for passage in passages} <= set(loaded.rows)
    for passage in passages:
        assert np.mean(passage.kl) == pytest.approx(passage.mean_kl)
        assert len(passage.tokens) == len(passage.ids) == len(passage.kl)


def test_the_terminal_names_the_classes_with_most_of_the_drift(
    measured: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    record = SectionRecord(name="where", title="Where", status=Status.MEASURED, details=to_json(measured.details))
    print_views([WhereDrift.view(record, measured.findings)])
    out = capsys.readouterr().out
    assert "[red]x[/]" in out
    assert "Putting back one layer helps most for layer" in out
    assert "is about" not in out, "a terminal shows numbers, never text"


def interval(value: float, documents: int = 12) -> Interval:
    return Interval(value=value, low=value - 0.01, high=value + 0.01, documents=documents)


def layer_findings() -> list[Finding]:
    findings = [found("where", "pydoc", "layer_kl", interval(0.3), "document"),
                found("where", "pydoc", "rest_restored", interval(0.25), "document")]  # fmt: skip
    for number, left in enumerate([0.2, 0.125, 0.28]):
        for measure, value in (("layer_restored", left), ("layer_repaired", 0.3 - left), ("layer_moved", 0.1)):
            findings.append(found("where", "pydoc", measure, interval(value), "document", part=f"layer {number}"))
    return findings


def test_the_best_repair_and_a_refusal_in_words() -> None:
    words = layers_in_words(layer_findings(), LayerProfile(text="pydoc", windows=12, tokens=99))
    assert "for layer 1 (of 0 to 2): KL on pydoc falls from 0.3000 [0.2900, 0.3100] to 0.1250" in words
    assert "by 0.1750" in words
    assert "12 windows, 99 tokens of pydoc" in words
    why = LayerProfile(text="pydoc", unavailable="they differ")
    assert layers_in_words([], why) == "Layers cannot be compared: they differ."


def test_classes_with_few_documents_are_no_evidence_and_without_drift_have_no_share() -> None:
    findings = [
        found("where", "pydoc", "class_token_share", interval(0.5, 3), "document", part="kind: digits"),
        found("where", "pydoc", "class_kl", interval(0.5, 3), "document", part="kind: digits"),
        found("where", "pydoc", "class_ce_change", interval(0.5, 3), "document", part="kind: digits"),
    ]
    details = WhereDetails(passages=[], continuations=[], layers=LayerProfile(text="", unavailable="no"))
    record = SectionRecord(name="where", title="Where", status=Status.MEASURED, details=to_json(details))
    view = WhereDrift.view(record, findings)
    (row,) = view.folded[0][1].rows
    assert [cell.shown for cell in row[:7]] == ["pydoc", "kind of token", "digits", "–", "50.0\u202f%",
                                                "not enough evidence", "not enough evidence"]  # fmt: skip
    assert row[5].raw[""] == 0.5
