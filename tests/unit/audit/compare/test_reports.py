"""Audited models side by side: the front against brute force, what is sure of a pair, reports that are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keeptune.audit.compare.comparison import Comparison, PairVerdict, pareto_front
from keeptune.audit.compare.page import pairs_table, points_table
from keeptune.audit.compare.reports import compare
from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.report.codec import from_json
from keeptune.report.document import Model, SectionRecord, Status
from keeptune.report.finding import Finding, found
from keeptune.report.terminal import print_tables
from keeptune.stats import Interval
from tests.helpers.audit_report import make_report, subject

FIRST, SECOND, OVERLAP, NO_EVIDENCE = PairVerdict
Ends = tuple[float, float | None, float | None]
Write = Callable[..., str]


def one(section: str, on: str, measure: str, ends: Ends, n: int = 20, **about: Any) -> Finding:
    interval = Interval(value=ends[0], low=ends[1], high=ends[2], documents=n)
    headline = measure in ("kl", "ce_change", "accuracy")
    return found(section, on, measure, interval, "document", headline=headline, **about)


def text(on: str, kl: Ends = (0.5, 0.4, 0.6), ce: Ends = (0.5, 0.4, 0.6), n: int = 20) -> list[Finding]:
    ends = {"kl": kl, "ce_change": ce, "agreement": (0.9, 0.88, 0.93), "entropy": (1.0, 0.9, 1.1)}
    return [one("drift", on, measure, of, n, noise_floor=0.001) for measure, of in ends.items()]


def quiz(change: Ends, part: str = "plain") -> list[Finding]:
    return [one("tasks", "quiz", "accuracy", change, 50, part=part)]


def sections(*digests: str) -> list[SectionRecord]:
    subjects = [subject(name, digest=digest) for name, digest in zip(("self", "new", "quiz"), digests, strict=False)]
    return [SectionRecord(name="drift", title="Drift", status=Status.MEASURED, subjects=subjects)]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a report of a model that learned `ce` and forgot `kl`, as its path."""

    def written(
        name: str,
        ce: Ends = (-1.0, -1.1, -0.9),
        kl: Ends = (0.1, 0.05, 0.15),
        findings: list[Finding] | None = None,
        task: list[Finding] | None = None,
        **replaced: Any,
    ) -> str:
        made = [*text("self", kl=kl), *text("new", ce=ce)] if findings is None else findings
        made += quiz((0.02, -0.01, 0.05)) if task is None else task
        models = {"base": Model(source="base", fingerprint="b")}
        models["tuned"] = [Model(source=f"runs/{name}/model", fingerprint=name)]  # type: ignore[assignment]
        report = make_report(made, **{"sections": sections("s", "n", "q"), **models, **replaced})
        path = tmp_path / name / "report.json"
        report.write(path)
        return str(path)

    return written


def test_the_front_is_that_of_brute_force() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        costs = generator.integers(0, 4, (7, 2)).tolist()
        expected = []
        for own in costs:
            beaten = False
            for other in costs:
                no_worse = other[0] <= own[0] and other[1] <= own[1]
                beaten = beaten or (no_worse and (other[0] < own[0] or other[1] < own[1]))
            expected.append(not beaten)
        assert pareto_front(costs) == expected
    assert pareto_front([[1, 1], [1, 1]]) == [True, True]


def test_three_models_by_hand(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [
        write("plain", ce=(-1.0, -1.1, -0.9), kl=(0.30, 0.25, 0.35)),
        write("replay", ce=(-0.95, -1.05, -0.85), kl=(0.05, 0.04, 0.06)),
        write("poor", ce=(-0.5, -0.6, -0.4), kl=(0.055, 0.045, 0.065)),
    ]
    result = compare([paths[0], str(Path(paths[1]).parent), f"one={paths[2]}"], learned="new", out=tmp_path)
    assert [point.name for point in result.points] == ["plain/model", "replay/model", "one"]
    assert [point.front for point in result.points] == [True, True, False]
    assert [(pair.learned, pair.forgot) for pair in result.pairs] == [
        (OVERLAP, SECOND),
        (FIRST, SECOND),
        (FIRST, OVERLAP),
    ]
    forgot = result.points[1].forgot
    assert (forgot.value, forgot.low, forgot.high, forgot.n, forgot.noise_floor) == (0.05, 0.04, 0.06, 20, 0.001)
    assert from_json(Comparison, (tmp_path / "compare.json").read_bytes()) == result
    print_tables(points_table(result), pairs_table(result))
    printed = capsys.readouterr().out
    for shown in ("replay/model", "0.0500", "[0.0400, 0.0600]", "second better", "yes"):
        assert shown in printed


def test_a_task_is_better_the_higher(write: Write, tmp_path: Path) -> None:
    changes = [(0.02, 0.0, 0.04), (0.10, 0.08, 0.12), (0.0, -0.02, 0.02)]
    paths = [write(f"m{place}", task=quiz(change)) for place, change in enumerate(changes)]
    result = compare(paths, learned="quiz", out=tmp_path)
    assert result.learned.better == "higher"
    assert [point.front for point in result.points] == [False, True, False]
    assert [pair.learned for pair in result.pairs] == [SECOND, OVERLAP, FIRST]


def test_pairs_are_judged_together(write: Write, tmp_path: Path) -> None:
    # The intervals of two of them just miss each other: enough alone, not among so many pairs.
    kls: list[Ends] = [(0.10, 0.08, 0.12), (0.16, 0.139, 0.181)]
    alone = [write(f"alone{place}", kl=kl) for place, kl in enumerate(kls)]
    assert compare(alone, learned="quiz", out=tmp_path).pairs[0].forgot == FIRST
    many = [*alone, *(write(f"m{place}", kl=(0.10, 0.08, 0.12)) for place in range(6))]
    assert compare(many, learned="quiz", out=tmp_path).pairs[0].forgot == OVERLAP


def test_agreement_is_read_as_what_was_lost(write: Write, tmp_path: Path) -> None:
    result = compare([write("a"), write("b")], learned="new", forgot="self:agreement", out=tmp_path)
    place = result.points[0].forgot
    assert (place.value, place.low, place.high) == pytest.approx((0.10, 0.07, 0.12))


def test_what_rounding_can_give_is_not_better(write: Write, tmp_path: Path) -> None:
    paths = [write("a", kl=(0.0004, 0.0003, 0.0005)), write("b", kl=(0.0010, 0.0009, 0.0011))]
    assert compare(paths, learned="new", out=tmp_path).pairs[0].forgot == OVERLAP


def test_few_documents_are_not_enough(write: Write, tmp_path: Path) -> None:
    def few(kl: float, ce: float) -> list[Finding]:
        return [*text("self", kl=(kl, kl, kl), n=9), *text("new", ce=(ce, None, None), n=1)]

    paths = [write("a", findings=few(0.1, -1.0)), write("b", findings=few(0.9, -2.0))]
    result = compare(paths, learned="new", out=tmp_path)
    assert result.pairs[0].forgot == NO_EVIDENCE
    assert result.pairs[0].learned == NO_EVIDENCE
    learned = result.points[1].learned
    assert (learned.value, learned.low, learned.n) == (-2.0, None, 1)
    print_tables(points_table(result))


def test_a_task_can_be_asked_as_chat(write: Write, tmp_path: Path) -> None:
    both = [*quiz((0.02, -0.01, 0.05)), *quiz((-0.2, -0.3, -0.1), "chat")]
    result = compare([write("a", task=both), write("b", task=both)], learned="quiz:chat", out=tmp_path)
    assert result.learned.part == "chat"
    assert result.points[0].learned.value == -0.2


def test_reports_that_do_not_belong_together_are_refused(write: Write, tmp_path: Path) -> None:
    good = write("good")
    other = Model(source="another", fingerprint="c")
    refusals: list[tuple[dict[str, Any], str]] = [
        ({"base": other}, "is of another base .another."),
        ({"sections": sections("s", "other", "q")}, "read other rows of new than .*good"),
        ({"sections": sections("s")}, "did not measure new"),
        ({"findings": text("self")}, "did not ask new as ce_change"),
        ({"kind": "stages"}, "another kind .'stages'."),
    ]
    for place, (replaced, message) in enumerate(refusals):
        with pytest.raises(SourceError, match=message):
            compare([good, write(f"bad{place}", **replaced)], learned="new", out=tmp_path)
    with pytest.raises(SourceError, match="did not ask quiz as plain"):
        compare([good, write("styles", task=quiz((0.0, -0.1, 0.1), "chat"))], learned="quiz", out=tmp_path)
    with pytest.raises(SourceNotFound, match="no report at"):
        compare([good, str(tmp_path / "nothing")], learned="new", out=tmp_path)
    (tmp_path / "old.json").write_text('{"kind": "audit", "texts": {}}')
    with pytest.raises(SourceError, match="an earlier version of keeptune"):
        compare([good, str(tmp_path / "old.json")], learned="new", out=tmp_path)
    assert not (tmp_path / "compare.json").exists()


def test_questions_that_the_reports_cannot_answer_are_refused(write: Write, tmp_path: Path) -> None:
    one, two = write("one"), write("two")
    with pytest.raises(ConfigError, match="two reports or more"):
        compare([one], learned="new", out=tmp_path)
    with pytest.raises(ConfigError, match="two models are called a"):
        compare([f"a={one}", f"a={two}"], learned="new", out=tmp_path)
    with pytest.raises(ConfigError, match="two models are called runs/one/model"):
        compare([one, one], learned="new", out=tmp_path)
    for learned in ("nothing", "quiz:chat", "new:kl"):
        with pytest.raises(ConfigError, match="no such text or task"):
            compare([one, two], learned=learned, out=tmp_path)
    for forgot in ("quiz", "self:entropy"):
        with pytest.raises(ConfigError, match="no such text, or that is no measure"):
            compare([one, two], learned="new", forgot=forgot, out=tmp_path)
