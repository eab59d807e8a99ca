"""JUnit and Markdown of an audit: parsed back, with names that try to be more than names."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from keeptune.audit.gate import Bound, check
from keeptune.audit.summary import write_junit, write_markdown
from keeptune.audit.verdict import SHOWN, verdicts
from keeptune.errors import StorageError

HOSTILE = "a|b<script>alert('1')</script>&\"]]>`x` **y**\n# z \x00\x1b[31m \ud800 @team"


def make_report(text: str = "wiki") -> dict[str, Any]:
    def interval(value: float, documents: int = 20) -> dict[str, Any]:
        return {"value": value, "low": value - 0.01, "high": value + 0.01, "documents": documents}

    few = interval(0.5, documents=3)
    measures = {"kl": interval(0.05), "l_f_rise": few, "ce_change": interval(0.005), "agreement": interval(0.98)}
    floors = {"documents": 8, "measures": {name: {"floor": 0.001} for name in SHOWN}}
    reading: dict[str, Any] = {"documents": 20, "tokens": 999, "measures": measures}
    reading["verdicts"] = verdicts(reading, floors)
    report: dict[str, Any] = {"base": {"source": "org/base"}, "tuned": {"source": HOSTILE}, "texts": {text: reading}}
    report["noise_floor"] = {"texts": {text: floors}}
    limits = {"kl": 0.02, "l_f_rise": 0.1, "ce_change": 0.001, "agreement": -0.03}
    bounds = [Bound(name=text, measure=name, limit=limit) for name, limit in limits.items()]
    return {**report, "gate": check(bounds, report)}


def cases_of(path: Path) -> list[ElementTree.Element]:
    (suite,) = ElementTree.parse(path).getroot()  # noqa: S314
    assert suite.attrib == {"name": "keeptune audit", "tests": "4", "failures": "1", "skipped": "1"}
    return list(suite)


def test_junit_has_a_case_a_bound_and_its_reason(tmp_path: Path) -> None:
    write_junit(tmp_path / "new" / "gate.xml", make_report())
    cases = cases_of(tmp_path / "new" / "gate.xml")
    assert [case.get("name") for case in cases] == [
        "kl ≤ 0.02",
        "l_f_rise ≤ 0.1",
        "ce_change ≤ 0.001",
        "agreement − 1 ≥ -0.03",
    ]
    assert {case.get("classname") for case in cases} == {"keeptune.audit.wiki"}
    assert [case[0].tag for case in cases] == ["failure", "skipped", "system-out", "system-out"]
    assert cases[0][0].text == cases[0][0].get("message")
    assert "kl on wiki is 0.05 [0.04, 0.06]" in str(cases[0][0].text)
    assert "not enough evidence" in str(cases[1][0].get("message"))
    assert "beyond the bound, not surely" in str(cases[2][0].text)


def test_hostile_names_stay_names_in_xml(tmp_path: Path) -> None:
    write_junit(tmp_path / "gate.xml", make_report(HOSTILE))
    name = str(cases_of(tmp_path / "gate.xml")[0].get("classname"))
    assert name == "keeptune.audit." + HOSTILE.translate({0: "\ufffd", 0x1B: "\ufffd", 0xD800: "\ufffd"})


def test_markdown_is_one_table_row_a_measure(tmp_path: Path) -> None:
    write_markdown(tmp_path / "gate.md", make_report())
    lines = (tmp_path / "gate.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| wiki")]
    assert len(rows) == 4
    assert rows[0] == (
        "| wiki | KL(base‖tuned) | 0.0500 | 0.0400 to 0.0600 | 0.001 | drifted | kl ≤ 0.02 | ❌ broken |"
    )
    assert "not enough evidence" in rows[1]
    assert lines[-1].startswith("- ✅ held: agreement on wiki is 0.98 &#91;0.97, 0.99&#93;")


def test_hostile_names_stay_names_in_markdown(tmp_path: Path) -> None:
    write_markdown(tmp_path / "gate.md", make_report(HOSTILE))
    content = (tmp_path / "gate.md").read_text(encoding="utf-8")
    for markup in ("<", "`", "**", "@", "\x1b", "\x00"):
        assert markup not in content
    rows = [line for line in content.splitlines() if "base‖tuned" in line]
    assert len(rows) == 1
    assert rows[0].count("|") == 9


def test_without_bounds_markdown_is_the_table(tmp_path: Path) -> None:
    write_markdown(tmp_path / "gate.md", {**make_report(), "gate": []})
    assert (tmp_path / "gate.md").read_text(encoding="utf-8").endswith("Intervals are over documents.\n")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gate.xml").write_text("old")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        write_junit(tmp_path / "gate.xml", make_report())
    assert (tmp_path / "gate.xml").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["gate.xml"]
