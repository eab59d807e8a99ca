"""The section of abilities: findings, what cannot be lost, and what is shown of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keeptune.audit.abilities.item import Ability, Name
from keeptune.audit.abilities.measure import Result
from keeptune.audit.abilities.section import Abilities
from keeptune.audit.abilities.suite import standard
from keeptune.audit.section import Loaded, Measured, paired
from keeptune.audit.settings import SECTIONS, AuditSettings
from keeptune.errors import ConfigError
from keeptune.models.modeling import fingerprint
from keeptune.report.codec import from_json, to_json
from keeptune.report.document import SectionRecord, Status
from keeptune.report.finding import together
from keeptune.report.measures import Verdict
from keeptune.workspace import Steps
from tests.helpers.abilities import ABILITY, able, noised
from tests.helpers.models import make_tokenizer


def settings(**given: Any) -> AuditSettings:
    return AuditSettings(base="a", tuned=("b",), **given)


def measured(base: Any, tuned: Any, folder: Path, *abilities: Ability) -> Measured:
    section = Abilities(settings(suite="standard"))
    section.abilities = abilities
    steps = Steps(folder, base=fingerprint(base), tuned=fingerprint(tuned))
    loaded = Loaded(
        base=base, second=tuned, tokenizer=make_tokenizer(), rows={}, sources={}, vocabulary=None, steps=steps
    )
    return section.measure(loaded)


def test_it_is_a_section_that_runs_where_a_suite_is_named() -> None:
    assert Abilities in SECTIONS
    assert "--suite" in Abilities(settings()).not_asked() and list(Abilities.names(settings())) == []
    asked = Abilities(settings(suite="standard"))
    assert asked.not_asked() == "" and list(asked.names(settings(suite="standard"))) == [name.value for name in Name]
    few = Abilities(settings(suite="standard", suite_items=4)).cost()
    whole = asked.cost()
    assert few.items == 24 < whole.items and few.written < whole.written < 20_000 and few.read < whole.read
    with pytest.raises(ConfigError, match="no suite of abilities called large") as refused:
        settings(suite="large")
    assert refused.value.fix == "name one of standard"
    with pytest.raises(ConfigError, match="suite_items is 0"):
        settings(suite="standard", suite_items=0)


def test_a_loss_is_found_and_what_the_base_cannot_do_is_not_kept(tmp_path: Path) -> None:
    model, lost = able(), noised(able())
    (finding,) = together(measured(model, lost, tmp_path, ABILITY).findings)
    assert finding.verdict == Verdict.LOWER and finding.worse and finding.label == "format"
    assert (finding.value, finding.lost, finding.gained, finding.n) == (-1.0, 12, 0, 12)
    (finding,) = together(measured(model, model, tmp_path, ABILITY).findings)
    assert finding.verdict == Verdict.NO_CHANGE and finding.base is not None and finding.base.value == 1.0
    (finding,) = together(measured(lost, lost, tmp_path, ABILITY).findings)
    assert finding.verdict == Verdict.CANNOT and finding.p is None
    (finding,) = together(measured(lost, model, tmp_path, ABILITY).findings)
    assert finding.verdict == Verdict.HIGHER and not finding.worse


def test_what_is_not_asked_is_said(tmp_path: Path) -> None:
    found = measured(able(), able(), tmp_path, *standard(4, only=[Name.TOOLS, Name.THINKING]))
    assert found.findings == [] and found.subjects == []
    assert any("tools: the base cannot do this" in line for line in found.methods)
    assert any("thinking: not applicable" in line for line in found.methods)


def test_a_view_is_drawn_from_what_a_report_holds(tmp_path: Path) -> None:
    tools = standard(4, only=[Name.TOOLS])
    found = measured(able(), noised(able()), tmp_path, ABILITY, *tools)
    details = to_json(found.details, dict[str, Result])
    assert from_json(dict[str, Result], details) == found.details
    record = SectionRecord(name="abilities", title="t", status=Status.MEASURED, details=details)
    view = Abilities.view(record, together(found.findings))
    tables = dict(view.folded)
    assert [[cell.shown for cell in row] for row in tables["Items passed by kind"].rows] == [
        ["format", "a", "6", "6", "0"],
        ["format", "b", "6", "6", "0"],
    ]
    assert len(tables["Answers that changed"].rows) == 12
    assert view.tables[0].rows[0][0].shown == "format" and len(view.lines) == 1 and "tools" in view.lines[0]


def test_where_neither_model_is_better_a_suite_seldom_finds_a_change() -> None:
    """100 null audits: models disagree on a third of the items, and which of both is right is a coin's toss."""
    generator, alarms = np.random.default_rng(0), 0
    sizes = [ability.size for ability in standard()]
    for _ in range(100):
        drawn = []
        for place, n in enumerate(sizes):
            differ = generator.random(n) < 1 / 3
            base = generator.random(n) < 0.5
            pair = base.tolist(), (base ^ differ).tolist()
            drawn.append(paired("abilities", str(place), "passed", *pair, "item"))
        alarms += any(finding.changed for finding in together(drawn))
    assert alarms <= 5
