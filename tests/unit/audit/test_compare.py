"""Audited models side by side: the front against brute force, what is sure of a pair, reports that are refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keeptune.audit.compare import compare, pareto_front
from keeptune.audit.items import Item
from keeptune.audit.meter import measure
from keeptune.audit.tasks import Task, measure_task
from keeptune.audit.terminal import print_comparison
from keeptune.audit.verdict import FIRST, NO_EVIDENCE, OVERLAP, SECOND, noise_floor
from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.models.modeling import fingerprint
from keeptune.storage import write_json
from keeptune.workspace import Steps
from tests.helpers.models import make_model, make_tokenizer

FLOORS = {measure: {"floor": 0.001} for measure in ("kl", "l_f_rise", "ce_change", "agreement")}
Interval = tuple[float, float | None, float | None]
Write = Callable[..., str]


def reading(documents: int = 20, **measures: Interval) -> dict[str, Any]:
    names = ("kl", "l_f_rise", "ce_change", "agreement", "entropy", "l_f_base", "ce_base")
    shown: dict[str, Interval] = {**dict.fromkeys(names, (0.5, 0.4, 0.6)), **measures}
    intervals = {
        name: {"value": value, "low": low, "high": high, "documents": documents}
        for name, (value, low, high) in shown.items()
    }
    return {"source": "a.txt", "documents": documents, "tokens": 1000, "measures": intervals}


def quiz(change: Interval, lost: int = 1) -> dict[str, Any]:
    value, low, high = change
    result = {"items": 50, "right_to_wrong": lost, "wrong_to_right": 0}
    headline = {**result, "change": {"value": value, "low": low, "high": high}}
    return {
        "asked": ["a", "b"],
        "right": "AB",
        "headline": "best",
        "formats": {"plain": {"left_out": 0, "best": headline}},
    }


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a report of a model that learned `ce` and forgot `kl`, as its path."""

    def written(name: str, ce: Interval = (-1.0, -1.1, -0.9), kl: Interval = (0.1, 0.05, 0.15), **replaced: Any) -> str:
        texts = {"self": reading(kl=kl, agreement=(0.9, 0.88, 0.93)), "new": reading(ce_change=ce)}
        content = {
            "kind": "audit",
            "base": {"source": "base", "fingerprint": "b"},
            "tuned": {"source": f"runs/{name}/model", "fingerprint": name},
            "texts": texts,
            "noise_floor": {"texts": {name: {"measures": FLOORS} for name in ("self", "new")}},
            "tasks": {"quiz": quiz((0.02, -0.01, 0.05))},
            **replaced,
        }
        path = tmp_path / name / "report.json"
        path.parent.mkdir()
        path.write_text(json.dumps(content))
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
    assert [point["name"] for point in result["points"]] == ["plain/model", "replay/model", "one"]
    assert [point["front"] for point in result["points"]] == [True, True, False]
    assert [(pair["learned"], pair["forgot"]) for pair in result["pairs"]] == [
        (OVERLAP, SECOND),
        (FIRST, SECOND),
        (FIRST, OVERLAP),
    ]
    assert result["points"][1]["forgot"] == {"value": 0.05, "low": 0.04, "high": 0.06, "documents": 20, "floor": 0.001}
    assert json.loads((tmp_path / "compare.json").read_text()) == result
    print_comparison(result)
    printed = capsys.readouterr().out
    for shown in ("replay/model", "0.0500", "[0.0400, 0.0600]", "second better", "yes"):
        assert shown in printed


def test_a_task_is_better_the_higher(write: Write, tmp_path: Path) -> None:
    tasks = [quiz((0.02, -0.01, 0.05)), quiz((0.10, 0.06, 0.14)), quiz((0.0, -0.03, 0.03), lost=0)]
    paths = [write(f"m{place}", tasks={"quiz": task}) for place, task in enumerate(tasks)]
    result = compare(paths, learned="quiz", out=tmp_path)
    assert result["axes"]["learned"]["higher_is_better"]
    assert [point["front"] for point in result["points"]] == [False, True, False]
    assert [pair["learned"] for pair in result["pairs"]] == [SECOND, OVERLAP, FIRST]


def test_agreement_is_read_as_what_was_lost(write: Write, tmp_path: Path) -> None:
    result = compare([write("a"), write("b")], learned="new", forgot="self:agreement", out=tmp_path)
    place = result["points"][0]["forgot"]
    assert [place[end] for end in ("value", "low", "high")] == pytest.approx([0.10, 0.07, 0.12])


def test_what_rounding_can_give_is_not_better(write: Write, tmp_path: Path) -> None:
    paths = [write("a", kl=(0.0004, 0.0003, 0.0005)), write("b", kl=(0.0010, 0.0009, 0.0011))]
    assert compare(paths, learned="new", out=tmp_path)["pairs"][0]["forgot"] == OVERLAP


def test_few_documents_are_not_enough(write: Write, tmp_path: Path) -> None:
    few = {"self": reading(9, kl=(0.1, 0.1, 0.1)), "new": reading(1, ce_change=(-1.0, None, None))}
    other = {"self": reading(9, kl=(0.9, 0.9, 0.9)), "new": reading(1, ce_change=(-2.0, None, None))}
    result = compare([write("a", texts=few), write("b", texts=other)], learned="new", out=tmp_path)
    assert result["pairs"][0]["forgot"] == NO_EVIDENCE
    assert result["pairs"][0]["learned"] == NO_EVIDENCE
    assert result["points"][1]["learned"] == {"value": -2.0, "low": None, "high": None, "documents": 1, "floor": 0.001}
    print_comparison(result)


def test_what_an_audit_measures_is_read(tmp_path: Path) -> None:
    base, tokenizer = make_model(), make_tokenizer()
    rows = [
        {"input_ids": list(range(9, 40 + number)), "labels": list(range(9, 40 + number)), "document": f"d{number}"}
        for number in range(12)
    ]
    items = [Item(name=str(n), question=f"{n}?", choices=("yes", "no"), right=n % 2) for n in range(12)]
    task = Task(source="quiz.jsonl", items=items, readable=12, flaws=[])
    for seed, name in enumerate(("near", "far"), start=1):
        tuned = make_model(seed)
        reading = {"source": "self", **measure(base, tuned, rows).summary()}
        answers = measure_task(base, tuned, tokenizer, task, "quiz", Steps(tmp_path / name / "steps"))
        report = {
            "kind": "audit",
            "base": {"source": "base", "fingerprint": fingerprint(base)},
            "tuned": {"source": name, "fingerprint": fingerprint(tuned)},
            "texts": {"self": reading},
            "noise_floor": {"texts": {"self": noise_floor(base, rows)}},
            "tasks": {"quiz": answers},
        }
        write_json(tmp_path / name / "report.json", report)
    for learned in ("self", "quiz", "quiz:chat"):
        result = compare([str(tmp_path / name) for name in ("near", "far")], learned=learned, out=tmp_path / "out")
        assert [point["name"] for point in result["points"]] == ["near", "far"]
        kl = reading["measures"]["kl"]
        assert [result["points"][1]["forgot"][end] for end in kl] == list(kl.values())


def test_reports_that_do_not_belong_together_are_refused(write: Write, tmp_path: Path) -> None:
    good = write("good")
    other_rows = {"self": reading(kl=(0.1, 0.0, 0.2)), "new": reading(ce_base=(0.52, 0.4, 0.6))}
    refusals = [
        ({"base": {"source": "another", "fingerprint": "c"}}, "is of another base .another."),
        ({"texts": other_rows}, "read other rows of new than .*good"),
        ({"texts": {"self": reading(), "new": reading(19)}}, "read other rows of new"),
        ({"texts": {"self": reading()}}, "did not measure new"),
        ({"kind": "stages"}, "another kind .'stages'."),
    ]
    for place, (replaced, message) in enumerate(refusals):
        with pytest.raises(SourceError, match=message):
            compare([good, write(f"bad{place}", **replaced)], learned="new", out=tmp_path)
    asked = {"quiz": {**quiz((0.0, -0.1, 0.1)), "asked": ["a", "c"]}}
    with pytest.raises(SourceError, match="read other rows of quiz"):
        compare([good, write("asked", tasks=asked)], learned="quiz", out=tmp_path)
    styles = {"quiz": {**quiz((0.0, -0.1, 0.1)), "formats": {}}}
    with pytest.raises(SourceError, match="did not ask quiz as plain"):
        compare([good, write("styles", tasks=styles)], learned="quiz", out=tmp_path)
    assert not (tmp_path / "compare.json").exists()


def test_damaged_reports_are_refused(write: Write, tmp_path: Path) -> None:
    good = write("good")
    content = json.loads(Path(good).read_text())
    damages: list[Callable[[Any], Any]] = [
        lambda report: report.pop("texts"),
        lambda report: report["texts"]["new"]["measures"].pop("ce_change"),
        lambda report: report["texts"]["new"]["measures"]["kl"].update(value="0.1"),
        lambda report: report["texts"]["new"]["measures"]["kl"].update(low=float("nan")),
        lambda report: report["texts"]["new"]["measures"]["kl"].update(low=None),
        lambda report: report["texts"].update(new=[]),
        lambda report: report["noise_floor"]["texts"].pop("self"),
        lambda report: report.update(tuned={"source": 3, "fingerprint": ""}),
        lambda report: report["tasks"]["quiz"].update(headline="other"),
    ]
    for damage in damages:
        broken = copy.deepcopy(content)
        damage(broken)
        path = tmp_path / "broken.json"
        path.write_text(json.dumps(broken))
        with pytest.raises(SourceError, match=r"broken\.json is damaged"):
            compare([good, str(path)], learned="new", out=tmp_path)
    for text in ("", "{", "[]", "[" * 100_000, "\x00"):
        (tmp_path / "broken.json").write_text(text)
        with pytest.raises(SourceError, match=r"broken\.json is damaged"):
            compare([good, str(tmp_path / "broken.json")], learned="new", out=tmp_path)
    with pytest.raises(SourceNotFound, match="no report at"):
        compare([good, str(tmp_path / "nothing")], learned="new", out=tmp_path)


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
