"""The seam: a section in two files, its own module and a line of `keeptune.audit.settings`, is everywhere at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from keeptune.audit import run as audit_run
from keeptune.audit.compare.reports import compare
from keeptune.audit.drift import Texts
from keeptune.audit.gate import parse_bounds
from keeptune.audit.headline import sentence
from keeptune.audit.page import summary_table, views_of
from keeptune.audit.planned import plan
from keeptune.audit.run import audit
from keeptune.audit.section import Cost, Loaded, Measured, Section, digest_of, paired
from keeptune.audit.settings import AuditSettings
from keeptune.errors import ConfigError, Diverged, SourceError
from keeptune.report.codec import once
from keeptune.report.document import OutcomeStatus, Report, Status, Subject, read_report
from keeptune.report.measures import Measure, register
from keeptune.report.terminal import print_views
from tests.helpers.models import make_model, make_tokenizer

# File one: what a module of the new section holds.

register(Measure(name="shouting", label="change of shouting", unit="share", says="How many answers are in capitals.",
                 better="lower", noun="shouting", bound="rise"))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ShoutSettings:
    """Its flags."""

    shouts: list[str] = field(default_factory=list)
    """Names of things to shout at."""


class Shouting(Section[ShoutSettings]):
    """A section that reads the models' own weights, so that it needs no prompts."""

    name, title, noun, bounds = "shouting", "How loud it is", "shout", ("shouting",)
    breaks = False

    @classmethod
    def names(cls, settings: ShoutSettings) -> Sequence[str]:
        return settings.shouts

    def not_asked(self) -> str:
        return "" if self.settings.shouts else "no --shouts is given"

    def cost(self) -> Cost:
        return Cost(items=12, written=12 * 64)

    def measure(self, loaded: Loaded) -> Measured:
        if self.breaks:
            raise SourceError("the megaphone is broken", "mend it")
        findings = []
        for name in self.settings.shouts:
            loud = once(loaded.steps.of(name=name), f"shouting {name}", list[bool], lambda: [True] * 11 + [False])
            findings.append(paired(self.name, name, "shouting", [False] * 12, loud, "prompt", headline=True))
        subjects = [
            Subject(name=name, kind="prompts", source="mine", n=12, unit_of_n="prompt", digest=digest_of(name))
            for name in self.settings.shouts
        ]
        return Measured(findings=findings, subjects=subjects, methods=["It was shouted at."])


# File two: what is added to keeptune.audit.settings.


@dataclass(frozen=True, kw_only=True)
class Settings(ShoutSettings, AuditSettings):
    """All settings, with those of the new section."""


SECTIONS = (Texts, Shouting)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for seed in range(2):
        make_model(seed=seed).save_pretrained(tmp_path / f"m{seed}")
        make_tokenizer().save_pretrained(tmp_path / f"m{seed}")
    models = str(tmp_path / "m0"), (str(tmp_path / "m1"),)
    return Settings(
        base=models[0], tuned=models[1], out=str(tmp_path / "out"), shouts=["hello"], docs=4, max_length=32, windows=1
    )


def test_a_new_section_is_measured_shown_bounded_and_compared(
    settings: Settings, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bounds = parse_bounds(["shouting=0.1", "hello:shouting=0.99"], settings.named(SECTIONS))
    report = audit(settings, bounds, SECTIONS)
    (finding,) = report.select("shouting")
    assert (finding.value, finding.lost, finding.gained, finding.n) == (pytest.approx(11 / 12), 0, 11, 12)
    assert (finding.words, finding.worse) == ("rose", True)
    assert read_report(Path(settings.out) / "report.json") == report
    assert "shouting: rose on hello (+91.7 points)" in sentence(report.findings)
    page = (Path(settings.out) / "report.html").read_text(encoding="utf-8")
    for shown in ("How loud it is", "How many answers are in capitals.", "It was shouted at.", "hello: +91.7"):
        assert shown in page
    assert (Path(settings.out) / "steps" / "shouting-hello.json").is_file()
    (outcome,) = report.gate
    assert (outcome.subject, outcome.status, outcome.limit) == ("hello", OutcomeStatus.HELD, 0.99)
    print_views(views_of(report, SECTIONS))
    assert "change of shouting" in capsys.readouterr().out
    assert any(row[0].shown == "hello" for row in summary_table(report).rows)
    planned = plan(settings, SECTIONS).table()
    assert [[cell.shown for cell in row] for row in planned.rows][1][2:5] == ["12", "0", "768"]
    assert settings.named(SECTIONS)["hello"] is Shouting
    report.write(tmp_path / "again.json")
    paths = [f"a={tmp_path / 'again.json'}", f"b={settings.out}"]
    assert compare(paths, learned="hello", out=tmp_path / "c").learned.measure == "shouting"


def test_what_cannot_be_measured_is_said_and_the_rest_goes_on(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shouting, "breaks", True)
    bounds = parse_bounds(["shouting=0.1"], settings.named(SECTIONS))
    report = audit(settings, bounds, SECTIONS)
    record = report.section("shouting")
    assert record is not None
    assert (record.status, record.reason) == (Status.ERROR, "the megaphone is broken; mend it")
    assert report.select("drift")
    assert report.gate[0].status is OutcomeStatus.NO_EVIDENCE
    # Where nothing at all can be measured there is no report.
    with pytest.raises(SourceError, match="megaphone"):
        audit(settings, (), (Shouting,))


def test_predictions_that_are_no_numbers_end_the_audit(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverged(self: Shouting, loaded: Loaded) -> Measured:
        raise Diverged("no numbers", "audit an earlier checkpoint")

    monkeypatch.setattr(Shouting, "measure", diverged)
    with pytest.raises(Diverged):
        audit(settings, (), SECTIONS)
    assert not (Path(settings.out) / "report.json").exists()


def test_texts_are_read_only_where_a_section_needs_them(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keeptune.audit.texts.sample_pool", pytest.fail)
    report: Report = audit(settings, (), (Shouting,))
    assert [record.name for record in report.sections] == ["shouting"]


def test_an_audit_of_nothing_is_refused(settings: Settings) -> None:
    silent = Settings(base=settings.base, tuned=settings.tuned)
    with pytest.raises(ConfigError, match="no --shouts is given"):
        audit_run.choose(silent, (Shouting,))
