"""The safety section: no transition without a change, scripted answers counted, steps kept, nothing shown unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM

from keeptune.audit.paired import difference
from keeptune.audit.safety import PromptSet, load_prompts, measure, measure_safety
from keeptune.audit.safety.detectors import DETECTORS
from keeptune.audit.terminal import print_safety
from keeptune.errors import SourceError, SourceNotFound
from keeptune.workspace import Steps
from tests.helpers.models import make_model, make_tokenizer


def asked(*prompts: str, kind: Any = "harmful") -> PromptSet:
    return PromptSet(source="list.txt", kind=kind, prompts=list(prompts), readable=99, flaws=["line 7: nothing"])


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
def test_a_base_against_itself_changes_nothing(tmp_path: Path, chat: bool) -> None:
    tokenizer = make_tokenizer() if chat else make_tokenizer(None)
    sets = load_prompts([], ["harmless"], 20)
    safety = measure_safety(make_model(), make_model(), tokenizer, sets, Steps(tmp_path), new_tokens=8)
    found = json.loads(json.dumps(safety, allow_nan=False))["sets"]["harmless"]
    assert found["asked"] == 20
    assert ("template" in found["format"]) is chat
    assert set(found["detectors"]) == {"rules", "likelihood"}
    for result in found["detectors"].values():
        moves = result["transitions"]
        assert moves["refused_answered"] == moves["answered_refused"] == 0
        assert sum(moves.values()) == 20
        assert result["change"] == difference(0, 0, 20).ends()
    assert found["detectors"]["likelihood"]["log_odds"]["change"] == {
        "value": 0.0,
        "low": 0.0,
        "high": 0.0,
        "documents": 20,
    }
    assert found["detectors_agree"]["base"] == found["detectors_agree"]["tuned"]
    assert all(row["base"] == row["tuned"] for row in found["answers"])
    assert any(row["base"] for row in found["answers"])


def script(monkeypatch: pytest.MonkeyPatch, pair: list[LlamaForCausalLM], *texts: list[str]) -> None:
    """Let the models write these texts, and the openings speak for a refusal by the base alone."""
    written = dict(zip(map(id, pair), texts, strict=True))
    ids = {key: make_tokenizer(None)(of_model)["input_ids"] for key, of_model in written.items()}
    monkeypatch.setattr(measure, "answer", lambda model, prompts, new_tokens, label: ids[id(model)])

    def odds(model: LlamaForCausalLM, tokenizer: Any, prompts: list[str], label: str) -> Any:
        return measure.np.array([1.0 if model is pair[0] else -1.0] * len(prompts))

    monkeypatch.setattr(measure, "opening_log_odds", odds)


SAID = "[red]Sure, a secret[/red]"
TUNED_SAID = ["", "I cannot do it.", SAID, "over and over and over and over and over and over"]


def test_scripted_answers_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = [make_model(), make_model(seed=1)]
    script(monkeypatch, pair, ["I can't."] * 3 + ["Sure."], TUNED_SAID)
    sets = {"[b]": asked("a", "b", "[u]c", "d"), "mild": asked("a", "b", "c", "d", kind="harmless")}
    safety = measure_safety(*pair, make_tokenizer(), sets, Steps(tmp_path))
    found = safety["sets"]["[b]"]
    rules, likelihood = found["detectors"]["rules"], found["detectors"]["likelihood"]
    assert list(rules["transitions"].values()) == [1, 2, 0, 1]
    assert rules["broken"] == 1
    assert list(likelihood["transitions"].values()) == [0, 4, 0, 0]
    assert likelihood["broken"] == 2
    assert likelihood["log_odds"]["change"]["value"] == -2.0
    assert found["detectors_agree"]["base"]["value"] == 0.75
    assert found["detectors_agree"]["tuned"]["value"] == 0.75
    assert found["degenerate"]["base"] == {**found["degenerate"]["base"], "empty": 0, "repeating": 0}
    assert found["degenerate"]["tuned"] == {**found["degenerate"]["tuned"], "empty": 1, "repeating": 1}
    assert found["degenerate"]["tuned"]["share"]["value"] == 0.5
    assert found["answers"][2] == {
        "prompt": "[u]c",
        "base": "I can't.",
        "tuned": SAID,
        "refused": {"rules": [True, False], "likelihood": [True, False]},
        "degenerate": [False, False],
    }
    assert (found["in_file"], found["unreadable"], found["new_tokens"]) == (99, ["line 7: nothing"], 64)
    assert safety["detectors"] == {name: DETECTORS[name] for name in ("rules", "likelihood")}
    print_safety({"safety": safety})
    table = capsys.readouterr().out
    assert "secret" not in table
    assert "[u]" not in table
    assert "[b]" in table
    assert "2, 0" in table
    assert "4 harmless" in table


def test_finished_steps_are_kept_until_something_changes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pair = [make_model(), make_model(seed=1)]
    calls: list[str] = []
    real = measure.answer

    def counted(model: Any, prompts: Any, new_tokens: int, label: str) -> Any:
        calls.append(label)
        return real(model, prompts, new_tokens, label)

    monkeypatch.setattr(measure, "answer", counted)

    def run(prompts: PromptSet, new_tokens: int = 4, template: bool = True) -> dict[str, Any]:
        tokenizer = make_tokenizer() if template else make_tokenizer(None)
        return measure_safety(*pair, tokenizer, {"mine": prompts}, Steps(tmp_path), new_tokens=new_tokens)

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
    safety = measure_safety(
        *pair, make_tokenizer(), sets, Steps(tmp_path / "steps"), new_tokens=4, judge=str(model_folder)
    )
    found = safety["sets"]["mine"]
    assert list(found["detectors"]) == list(safety["detectors"]) == ["rules", "likelihood", "judge"]
    assert sum(found["detectors"]["judge"]["transitions"].values()) == 3
    expected = measure.judge_refusals(
        make_model(), make_tokenizer(), ["a", "b", "c"], [row["tuned"] for row in found["answers"]], "Judging"
    )
    assert [row["refused"]["judge"][1] for row in found["answers"]] == expected
    assert safety["judge"] == str(model_folder)
    with pytest.raises(SourceNotFound):
        measure_safety(*pair, make_tokenizer(), sets, Steps(tmp_path / "steps"), judge=str(tmp_path / "none" / "x"))


def test_prompts_beyond_the_context_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = [make_model(), make_model(seed=1)]
    safety = measure_safety(
        *pair, make_tokenizer(), {"mine": asked("short", "long " * 60)}, Steps(tmp_path), new_tokens=4
    )
    assert (safety["sets"]["mine"]["asked"], safety["sets"]["mine"]["too_long"]) == (1, 1)
    assert "1 prompts left out" in capsys.readouterr().err
    with pytest.raises(SourceError, match="no prompt of mine leaves room"):
        measure_safety(*pair, make_tokenizer(), {"mine": asked("long " * 60)}, Steps(tmp_path))


def test_nothing_is_asked_without_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    safety = measure_safety(make_model(), make_model(), make_tokenizer(), {}, Steps(tmp_path))
    assert safety == {}
    print_safety({"safety": safety})
    print_safety({})
    assert capsys.readouterr().out == ""
