"""The safety section: no transition without a change, scripted answers counted, steps kept, nothing shown unasked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import LlamaForCausalLM

from keeptune.audit.safety import PromptSet, load_prompts, measure
from keeptune.audit.safety.measure import Answered, ask_sets
from keeptune.audit.safety.prompt_sets import Kind
from keeptune.audit.safety.section import Refusals, SetDetails, refusal_findings
from keeptune.audit.section import Loaded, Measured
from keeptune.audit.settings import AuditSettings
from keeptune.errors import SourceError, SourceNotFound
from keeptune.report.codec import from_json, to_json
from keeptune.report.document import SectionRecord, Status
from keeptune.report.finding import Finding, select
from keeptune.report.measures import Verdict
from keeptune.report.terminal import print_views
from keeptune.workspace import Steps
from tests.helpers.models import make_model, make_tokenizer

HIGHER, LOWER, NO_CHANGE, NO_EVIDENCE, _ = Verdict
Pair = list[LlamaForCausalLM]


def ask(
    pair: Pair, sets: dict[str, PromptSet], folder: Path, template: str | bool = True, **more: Any
) -> dict[str, Answered]:
    tokenizer = make_tokenizer() if template else make_tokenizer(None)
    return ask_sets(dict(zip(("base", "tuned"), pair, strict=True)), tokenizer, sets, Steps(folder), **more)


def measured(pair: Pair, sets: dict[str, PromptSet], folder: Path) -> Measured:
    section = Refusals(AuditSettings(base="base", tuned=("tuned",)))
    section.sets = sets
    loaded = Loaded(
        base=pair[0],
        second=pair[1],
        tokenizer=make_tokenizer(),
        rows={},
        sources={},
        vocabulary=None,
        steps=Steps(folder),
    )
    return section.measure(loaded)


def asked(*prompts: str, kind: Any = "harmful") -> PromptSet:
    return PromptSet(source="list.txt", kind=kind, prompts=list(prompts), readable=99, flaws=["line 7: nothing"])


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
def test_a_base_against_itself_changes_nothing(tmp_path: Path, chat: bool) -> None:
    sets = load_prompts([], ["harmless"], 20)
    found = ask([make_model(), make_model()], sets, tmp_path, chat, new_tokens=8)["harmless"]
    assert found.answers["base"] == found.answers["tuned"]
    assert any(found.answers["base"])
    findings = list(refusal_findings("refusals", "harmless", "harmless", found))
    for one in select(findings, measure="refusals") + select(findings, measure="broken"):
        assert (one.n, one.lost, one.gained, one.value, one.p) == (20, 0, 0, 0.0, 1.0)
        assert one.base == one.tuned
    (odds,) = select(findings, measure="refusal_log_odds")
    assert (odds.value, odds.low, odds.high, odds.n) == (0.0, 0.0, 0.0, 20)
    (agree,) = select(findings, measure="detectors_agree")
    assert agree.base == agree.tuned


def script(monkeypatch: pytest.MonkeyPatch, pair: Pair, *texts: list[str]) -> None:
    """Let the models write these texts, and the openings speak for a refusal by the base alone."""
    written = dict(zip(map(id, pair), texts, strict=True))
    ids = {key: make_tokenizer(None)(of_model)["input_ids"] for key, of_model in written.items()}
    monkeypatch.setattr(measure, "answer", lambda model, prompts, new_tokens, label: ids[id(model)])

    def odds(model: LlamaForCausalLM, tokenizer: Any, prompts: list[str], label: str) -> Any:
        return np.array([1.0 if model is pair[0] else -1.0] * len(prompts))

    monkeypatch.setattr(measure, "opening_log_odds", odds)


SAID = "[red]Sure, a secret[/red]"
TUNED_SAID = ["", "I cannot do it.", SAID, "over and over and over and over and over and over"]


def test_scripted_answers_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = [make_model(), make_model(seed=1)]
    script(monkeypatch, pair, ["I can't."] * 3 + ["Sure."], TUNED_SAID)
    sets = {"[b]": asked("a", "b", "[u]c", "d"), "mild": asked("a", "b", "c", "d", kind="harmless")}
    found = measured(pair, sets, tmp_path)
    by = {(one.measure, one.part): one for one in found.findings if one.subject == "[b]"}
    rules, likelihood, broken = by["refusals", "rules"], by["refusals", "likelihood"], by["broken", ""]
    assert (rules.lost, rules.gained, rules.n) == (2, 0, 4)
    assert (likelihood.lost, likelihood.gained) == (4, 0)
    assert (broken.lost, broken.gained, broken.value, broken.of) == (0, 2, 0.5, "harmful prompts")
    assert by["refusal_log_odds", ""].value == -2.0
    assert by["detectors_agree", ""].value == 0.75
    assert (rules.better, broken.better) == ("higher", "lower")
    assert {one.better for one in found.findings if one.subject == "mild" and one.measure == "refusals"} == {"lower"}
    details = from_json(dict[str, SetDetails], to_json(found.details))
    third = details["[b]"].answers[2]
    assert (third.prompt, third.base, third.tuned) == ("[u]c", "I can't.", SAID)
    assert third.refused == {"rules": [True, False], "likelihood": [True, False]}
    assert [answer.broken for answer in details["[b]"].answers] == [[False, of] for of in (True, False, False, True)]
    assert "[b]: of 2 refusals lost by rules, 1 gave way to a broken answer." in found.methods
    assert any("4 harmful prompts of 99 from list.txt" in line and "line 7: nothing" in line for line in found.methods)
    record = SectionRecord(name="refusals", title="Refusals", status=Status.MEASURED, details=to_json(found.details))
    print_views([Refusals.view(record, found.findings)])
    table = capsys.readouterr().out
    assert "secret" not in table
    assert "[u]" not in table
    assert "[b]" in table


def pairs(both: int, lost: int, gained: int, neither: int) -> dict[str, list[bool]]:
    base = [True] * both + [True] * lost + [False] * gained + [False] * neither
    tuned = [True] * both + [False] * lost + [True] * gained + [False] * neither
    return {"base": base, "tuned": tuned}


def judged(counts: tuple[int, int, int, int], kind: Kind) -> Finding:
    refused = pairs(*counts)
    n = len(refused["base"])
    texts, odds = {"base": ["yes"] * n, "tuned": ["yes"] * n}, {"base": [0.0] * n, "tuned": [0.0] * n}
    answered = Answered(prompts=["?"] * n, answers=texts, log_odds=odds, refused={"rules": refused})
    return next(iter(refusal_findings("refusals", "x", kind, answered)))


def test_the_statistics_of_a_change() -> None:
    # The check values of McNemar's test and of the paired interval: n = 500, 45 lost, 20 gained.
    one = judged((135, 45, 20, 300), "harmful")
    assert (one.lost, one.gained, one.n) == (45, 20, 500)
    assert one.base is not None
    assert one.tuned is not None
    assert (one.base.value, one.tuned.value) == pytest.approx((0.36, 0.31))
    assert [round(end or 0, 3) for end in (one.value, one.low, one.high)] == [-0.05, -0.081, -0.018]
    assert round(one.p or 0, 5) == 0.00263
    assert (one.words, one.worse) == ("refuses less", True)
    other = judged((135, 20, 45, 300), "harmless")
    assert (other.words, other.worse) == ("refuses more", True)


@pytest.mark.parametrize(
    ("counts", "kind", "verdict"),
    [
        ((20, 5, 5, 20), "harmful", NO_CHANGE),
        ((0, 5, 0, 95), "harmful", NO_EVIDENCE),
        ((0, 0, 0, 100), "harmful", NO_EVIDENCE),
        ((0, 0, 0, 100), "harmless", NO_CHANGE),
        ((0, 0, 6, 94), "harmful", HIGHER),
        ((0, 0, 6, 94), "harmless", HIGHER),
        ((0, 6, 0, 94), "harmful", LOWER),
        ((0, 9, 0, 0), "harmful", NO_EVIDENCE),
        ((0, 0, 0, 9), "harmless", NO_EVIDENCE),
    ],
)
def test_verdicts(counts: tuple[int, int, int, int], kind: Kind, verdict: Verdict) -> None:
    assert judged(counts, kind).verdict is verdict


def test_finished_steps_are_kept_until_something_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pair = [make_model(), make_model(seed=1)]
    calls: list[str] = []
    real = measure.answer

    def counted(model: Any, prompts: Any, new_tokens: int, label: str) -> Any:
        calls.append(label)
        return real(model, prompts, new_tokens, label)

    monkeypatch.setattr(measure, "answer", counted)

    def run(prompts: PromptSet, new_tokens: int = 4, template: bool = True) -> dict[str, Answered]:
        return ask(pair, {"mine": prompts}, tmp_path, template, new_tokens=new_tokens)

    first = run(asked("a", "b"))
    assert calls == ["Answering mine (base)", "Answering mine (tuned)"]
    assert run(asked("a", "b")) == first
    assert len(calls) == 2
    run(asked("a", "c"))
    run(asked("a", "c"), new_tokens=5)
    run(asked("a", "c"), new_tokens=5, template=False)
    assert len(calls) == 8


def test_a_judge_is_asked_once_the_answers_are_there(model_folder: Path, tmp_path: Path) -> None:
    pair, sets = [make_model(), make_model(seed=1)], {"mine": asked("a", "b", "c")}
    found = ask(pair, sets, tmp_path / "steps", new_tokens=4, judge=str(model_folder))["mine"]
    assert list(found.refused) == ["rules", "likelihood", "judge"]
    expected = measure.judge_refusals(
        make_model(), make_tokenizer(), ["a", "b", "c"], found.answers["tuned"], "Judging"
    )
    assert found.refused["judge"]["tuned"] == expected
    with pytest.raises(SourceNotFound):
        ask(pair, sets, tmp_path / "steps", judge=str(tmp_path / "none" / "x"))


def test_prompts_beyond_the_context_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = [make_model(), make_model(seed=1)]
    found = measured(pair, {"mine": asked("short", "long " * 60)}, tmp_path)
    assert (found.subjects[0].n, found.findings[0].n) == (1, 1)
    assert "1 prompt left no room in the context" in found.methods[0]
    assert "1 prompts left out" in capsys.readouterr().err
    with pytest.raises(SourceError, match="no prompt of mine leaves room"):
        ask(pair, {"mine": asked("long " * 60)}, tmp_path)


def test_nothing_is_asked_without_sets(tmp_path: Path) -> None:
    assert Refusals(AuditSettings(base="base", tuned=("tuned",))).not_asked() == "no --harmful or --harmless is given"
    assert ask([make_model(), make_model()], {}, tmp_path, judge="nowhere") == {}
