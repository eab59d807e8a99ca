"""report.json: written and read back alike, its schema published, and anything else refused in words."""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keeptune.errors import SourceError
from keeptune.report.codec import from_json, once, to_json
from keeptune.report.document import Model, Report, SectionRecord, Status, findings_csv, read_report, report_schema
from keeptune.report.finding import Level, found, together
from keeptune.stats import Interval
from keeptune.workspace import Steps

SCHEMA = Path(__file__).parents[3] / "docs" / "report.schema.json"


def make_report(**replaced: Any) -> Report:
    half = Interval(value=0.3, low=0.2, high=0.4, documents=20)
    findings = [
        found("drift", "=cmd()", "kl", half, "document", noise_floor=0.01, headline=True),
        found("tasks", "arc", "accuracy", half, "item", p=0.01, part="chat", base=Level(value=0.5), lost=1, gained=2),
        found("drift", "lone", "kl", Interval(value=1.0, low=None, high=None, documents=1), "document"),
    ]
    given: dict[str, Any] = {
        "kind": "audit",
        "base": Model(source="base", fingerprint="b"),
        "tuned": [Model(source="tuned", fingerprint="t")],
        "vocabulary": None,
        "settings": {"docs": 3, "text": ["a=b"]},
        "sections": [SectionRecord(name="drift", title="Drift", status=Status.MEASURED, details={"any": [1, None]})],
        "findings": together(findings),
        "gate": [],
        "command": "keeptune audit",
        "commit": None,
        "seed": 1,
        "versions": {"torch": "2"},
        "machine": {"threads": 2, "accelerator": None},
    }
    return Report(**{**given, **replaced})


def test_a_report_is_read_back_as_it_was(tmp_path: Path) -> None:
    report = make_report()
    report.write(tmp_path / "report.json")
    assert read_report(tmp_path / "report.json") == report
    assert report.section("drift") == report.sections[0]
    assert report.section("none") is report.subject("none") is None


def test_findings_stand_in_a_csv_that_a_spreadsheet_does_not_run(tmp_path: Path) -> None:
    make_report().write(tmp_path / "report.json")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "findings.csv").read_text(encoding="utf-8"))))
    assert [(row["subject"], row["measure"], row["verdict"]) for row in rows] == [
        ("'=cmd()", "kl", "higher"),
        ("arc", "accuracy", "higher"),
        ("lone", "kl", "not enough evidence"),
    ]
    assert (rows[1]["base_value"], rows[1]["base_low"], rows[1]["lost"], rows[2]["low"]) == ("0.5", "", "1", "")
    assert findings_csv([]).count("\n") == 1


def test_the_schema_is_published() -> None:
    published = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert bare(published) == bare(report_schema()), "run python docs/report_schema.py"
    assert set(report_schema()["properties"]) == set(to_json(make_report()))  # type: ignore[arg-type]


def bare(schema: Any) -> Any:
    """Without titles and descriptions, which are words."""
    if isinstance(schema, list):
        return [bare(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    words = ("title", "description", "$schema")
    return {key: bare(part) for key, part in schema.items() if key not in words or not isinstance(part, str)}


DAMAGES: list[Callable[[Any], Any]] = [
    lambda report: report.pop("findings"),
    lambda report: report["findings"][0].pop("value"),
    lambda report: report["findings"][0].update(value="0.1"),
    lambda report: report["findings"][0].update(value=True),
    lambda report: report["findings"][0].update(verdict="drifted"),
    lambda report: report["findings"][0].update(n=1.5),
    lambda report: report["findings"][0].update(unit_of_n="sheep"),
    lambda report: report["sections"][0].update(status="fine"),
    lambda report: report.update(base={"source": 3, "fingerprint": ""}),
    lambda report: report.update(tuned="tuned"),
    lambda report: report.update(findings={}),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_reports_are_refused(tmp_path: Path, damage: Callable[[Any], Any]) -> None:
    content = copy.deepcopy(to_json(make_report()))
    damage(content)
    file = tmp_path / "report.json"
    file.write_text(json.dumps(content))
    with pytest.raises(SourceError, match=r"report\.json is damaged"):
        read_report(file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is damaged"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("\x00", "is damaged"),
        ('{"a": NaN}', "is damaged"),
        ("{}", "another kind .None"),
        ('{"kind": "compare"}', "another kind .'compare'"),
        ('{"kind": "audit", "texts": {}}', "an earlier version of keeptune"),
        ('{"kind": "audit", "version": 99}', "another version .99. of keeptune, not of version 2"),
    ],
)
def test_what_is_no_report_of_this_version_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "report.json"
    file.write_text(text)
    with pytest.raises(SourceError, match=said):
        read_report(file)


def test_numbers_that_json_has_not_are_no_values() -> None:
    with pytest.raises(ValueError, match="no number of JSON"):
        from_json(dict[str, float], b'{"a": Infinity}')
    with pytest.raises(ValueError):
        from_json(list[int], ["1"])


def test_a_step_is_kept_as_its_type_and_one_of_another_form_is_computed_again(tmp_path: Path) -> None:
    steps, calls = Steps(tmp_path, models="these"), []

    def compute() -> dict[str, Level]:
        calls.append(1)
        return {"a": Level(value=0.5)}

    def fails() -> dict[str, Level]:
        raise SourceError("no data", "give some")

    for _ in range(2):
        assert once(steps, "some step", dict[str, Level], compute) == {"a": Level(value=0.5)}
    assert len(calls) == 1
    Steps(tmp_path, models="these").once("earlier", lambda: {"a": [0.5]})
    assert once(steps, "earlier", dict[str, Level], compute) == {"a": Level(value=0.5)}
    assert len(calls) == 2
    with pytest.raises(SourceError, match="no data"):
        once(steps, "fails", dict[str, Level], fails)
    with pytest.raises(ValueError, match="a: "):
        once(steps, "never fits", dict[str, Level], lambda: {"a": 3})  # type: ignore[dict-item]
