"""The suite on real models: what one has learned and the other has lost is found, and nothing where nothing changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keeptune.audit.abilities import measure as module
from keeptune.audit.abilities.ask import Reason
from keeptune.audit.abilities.compare import Standing
from keeptune.audit.abilities.item import Ability, Name
from keeptune.audit.abilities.measure import Result, measure_ability
from keeptune.audit.abilities.suite import standard
from keeptune.models.modeling import fingerprint
from keeptune.workspace import Steps
from tests.helpers.abilities import ABILITY, ITEMS, able, noised
from tests.helpers.models import make_model, make_tokenizer

TOKENIZER = make_tokenizer()


def run(base: Any, tuned: Any, folder: Path, ability: Ability = ABILITY, tokenizer: Any = TOKENIZER) -> Result:
    steps = Steps(folder, base=fingerprint(base), tuned=fingerprint(tuned))
    return measure_ability(base, tuned, tokenizer, ability, steps)


def test_what_is_lost_is_found_and_nothing_where_nothing_changed(tmp_path: Path) -> None:
    same = run(able(), able(), tmp_path)
    assert same.standing == Standing.ABLE and same.chance == 0.0
    assert same.base == same.tuned == [True] * 12
    lost = run(able(), noised(able()), tmp_path)
    assert lost.standing == Standing.ABLE and lost.base == [True] * 12 and lost.tuned == [False] * 12
    assert [answer.base for answer in lost.answers] == [f"{one.name[0]}={one.name[1]}" for one in ITEMS]
    gained = run(noised(able()), able(), tmp_path)
    assert gained.standing == Standing.ABLE and gained.tuned == [True] * 12
    unable = run(noised(able()), noised(able()), tmp_path)
    assert unable.standing == Standing.CANNOT


def test_an_interrupted_audit_goes_on_behind_the_last_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, write = [], module.write

    def counting(ability: Ability, asked: Any, model: Any, tokenizer: Any, label: str) -> list[str]:
        if len(written) == 1 and not go_on:
            raise KeyboardInterrupt
        written.append(label)
        return write(ability, asked, model, tokenizer, label)

    monkeypatch.setattr(module, "write", counting)
    go_on = False
    with pytest.raises(KeyboardInterrupt):
        run(able(), noised(able()), tmp_path)
    go_on = True
    first = run(able(), noised(able()), tmp_path)
    assert written == ["Pairs (base)", "Pairs (tuned)"]
    assert run(able(), noised(able()), tmp_path) == first and len(written) == 2
    run(able(), noised(able()), tmp_path, Ability(**{**vars(ABILITY), "items": ITEMS[:9]}))
    assert len(written) == 4, "other items are other work"


def test_the_standard_suite_on_a_model_that_can_nothing(tmp_path: Path) -> None:
    model = make_model()
    model.config.max_position_embeddings = 4096
    found = {ability.name: run(model, model, tmp_path, ability) for ability in standard(4)}
    assert list(found) == list(Name)
    assert found[Name.TOOLS].reason == Reason.NO_TOOLS and found[Name.TOOLS].standing == Standing.CANNOT
    assert found[Name.THINKING].reason == Reason.NO_REASONING
    assert found[Name.THINKING].standing == Standing.NOT_APPLICABLE
    for name in (Name.FORMAT, Name.SOUND, Name.REFUSES):
        assert len(found[name].answers) == 4 and found[name].base == found[name].tuned
        assert found[name].standing in (Standing.CANNOT, Standing.TOO_FEW)
    assert sum(found[Name.SOUND].base) <= 2
    assert len(found[Name.CHOICE].answers) == 4 and found[Name.CHOICE].chance == 0.25


def test_questions_longer_than_the_context_are_counted(tmp_path: Path) -> None:
    model = make_model()
    model.config.max_position_embeddings = 16
    found = run(model, model, tmp_path, standard(8, only=[Name.CHOICE])[0])
    assert found.standing == Standing.NOT_APPLICABLE and found.reason == Reason.NO_ROOM and found.left_out == 8
