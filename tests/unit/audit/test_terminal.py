"""The table on standard output: what it says, and that nothing in a name is taken for markup."""

from __future__ import annotations

from typing import Any

import pytest

from keeptune.audit.terminal import layers_in_words, print_where


def interval(value: float, documents: int = 12) -> dict[str, Any]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "documents": documents}


def entry(name: str, share: float | None, *, evidence: bool = True) -> dict[str, Any]:
    kl, ce_change = interval(0.5), interval(-0.25)
    shares = {"tokens": 7, "token_share": 0.125, "kl_share": share}
    return {"class": name, **shares, "kl": kl, "ce_change": ce_change, "enough_evidence": evidence}


def report(text: str = "pydoc") -> dict[str, Any]:
    classes = {
        "probability": [entry("low", 0.11), entry("middle", 0.55), entry("high", 0.34)],
        "position": [entry("first", 1.0, evidence=False)],
        "kind": [entry("digits", None)],
    }
    layers = [
        {"layer": number, "kl_layer_restored": interval(left), "kl_repaired": interval(0.3 - left)}
        for number, left in enumerate([0.2, 0.125, 0.28])
    ]
    profile = {"text": "pydoc", "windows": 12, "tokens": 99, "kl": interval(0.3), "layers": layers}
    return {"where": {"texts": {text: {"classes": classes}}, "passages": [], "layers": profile, "continuations": []}}


def printed(content: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "160")
    print_where(content)
    return capsys.readouterr().out


def test_the_classes_with_most_of_the_drift_come_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = printed(report(), capsys, monkeypatch)
    assert out.index("middle") < out.index("high")
    assert "low" not in out
    row = next(line for line in out.splitlines() if "middle" in line)
    for cell in ("pydoc", "55%", "12%", "0.500 [0.490, 0.510]"):
        assert cell in row
    assert "not enough evidence" in next(line for line in out.splitlines() if "first" in line)
    assert "–" in next(line for line in out.splitlines() if "digits" in line)
    assert "layer 1 (of 0 to 2)" in out


def test_names_are_no_markup(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "[red]x[/]" in printed(report("[red]x[/]"), capsys, monkeypatch)


def test_the_best_repair_and_a_refusal_in_words() -> None:
    words = layers_in_words(report()["where"]["layers"])
    assert "from 0.300 [0.290, 0.310] to 0.125 [0.115, 0.135], by 0.175" in words
    assert layers_in_words({"unavailable": "they differ"}) == "Layers cannot be compared: they differ."


def test_a_report_without_the_section_prints_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert printed({}, capsys, monkeypatch) == ""
