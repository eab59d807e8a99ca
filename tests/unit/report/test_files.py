"""JUnit and Markdown of an audit: parsed back, with names that try to be more than names."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from keeptune.audit.drift import Texts
from keeptune.audit.gate import Bound, check
from keeptune.audit.page import summary_table
from keeptune.errors import StorageError
from keeptune.report.document import Model, Report
from keeptune.report.files import write_junit, write_markdown
from keeptune.report.finding import Finding, found
from keeptune.stats import Interval
from tests.helpers import audit_report

HOSTILE = "a|b<script>alert('1')</script>&\"]]>`x` **y**\n# z \x00\x1b[31m \ud800 @team"


def finding(measure: str, value: float, text: str, n: int = 20) -> Finding:
    interval = Interval(value=value, low=value - 0.01, high=value + 0.01, documents=n)
    return found("drift", text, measure, interval, "document", noise_floor=0.001, headline=True)


def make_report(text: str = "wiki", **replaced: object) -> Report:
    measured = {"kl": (0.05, 20), "l_f_rise": (0.5, 3), "ce_change": (0.005, 20), "agreement": (0.98, 20)}
    findings = [finding(name, value, text, n) for name, (value, n) in measured.items()]
    limits = {"kl": 0.02, "l_f_rise": 0.1, "ce_change": 0.001, "agreement": -0.03}
    bounds = [Bound(name=text, measure=name, limit=limit) for name, limit in limits.items()]
    models = {"base": Model(source="org/base", fingerprint="b"), "tuned": [Model(source=HOSTILE, fingerprint="t")]}
    gate = check(bounds, findings, {text: Texts})
    return audit_report.make_report(findings, **{"gate": gate, **models, **replaced})


def markdown(path: Path, report: Report) -> list[str]:
    write_markdown(path, report, "What was said of <it>.", [summary_table(report)])
    return path.read_text(encoding="utf-8").splitlines()


def cases_of(path: Path) -> list[ElementTree.Element]:
    (suite,) = ElementTree.parse(path).getroot()  # noqa: S314
    assert suite.attrib == {"name": "keeptune audit", "tests": "4", "failures": "1", "skipped": "1"}
    return list(suite)


def test_junit_has_a_case_a_bound_and_its_reason(tmp_path: Path) -> None:
    write_junit(tmp_path / "new" / "gate.xml", make_report().gate)
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
    write_junit(tmp_path / "gate.xml", make_report(HOSTILE).gate)
    name = str(cases_of(tmp_path / "gate.xml")[0].get("classname"))
    assert name == "keeptune.audit." + HOSTILE.translate({0: "\ufffd", 0x1B: "\ufffd", 0xD800: "\ufffd"})


def test_markdown_is_one_table_row_a_finding(tmp_path: Path) -> None:
    lines = markdown(tmp_path / "gate.md", make_report())
    rows = [line for line in lines if line.startswith("| wiki")]
    assert len(rows) == 4
    assert rows[0] == "| wiki | KL(base‖tuned) | 0.0500 &#91;0.0400, 0.0600&#93; | drifted | 20 documents |"
    assert "not enough evidence" in rows[1]
    assert "What was said of &#60;it&#62;." in lines
    assert lines[-1].startswith("- ✅ held: agreement on wiki is 0.98 &#91;0.97, 0.99&#93;")
    assert [line[:10] for line in lines[-4:-1]] == ["- ❌ broken", "- ⚠️ not e", "- ⚠️ beyon"]


def test_hostile_names_stay_names_in_markdown(tmp_path: Path) -> None:
    lines = markdown(tmp_path / "gate.md", make_report(HOSTILE))
    content = "\n".join(lines).replace("**What was found**", "")
    for markup in ("<", "`", "**", "@", "\x1b", "\x00"):
        assert markup not in content
    rows = [line for line in lines if "base‖tuned" in line and line.startswith("|")]
    assert len(rows) == 1
    assert rows[0].count("|") == 6


def test_without_bounds_markdown_is_the_table(tmp_path: Path) -> None:
    lines = markdown(tmp_path / "gate.md", make_report(gate=[]))
    assert lines[-1].endswith("p holds for all findings together.")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gate.xml").write_text("old")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        write_junit(tmp_path / "gate.xml", make_report().gate)
    assert (tmp_path / "gate.xml").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["gate.xml"]
