"""The sentence at the top of a report: what was forgotten, for someone who reads nothing else. A function of findings.

Drift comes first, as a distance. Then every other measure, by one rule: what changed is named with its size, and where
nothing did, that is said.
"""

from __future__ import annotations

from collections.abc import Sequence

from keeptune.report.finding import Finding, select
from keeptune.report.measures import NOT_TOLD, SHARE, Verdict
from keeptune.report.words import counted, listed, named, repair_command, shown_number


def sentence(findings: Sequence[Finding]) -> str:
    """What changed and what did not, of the findings that are headlines."""
    words = "; ".join(clauses(findings))
    return f"{words[0].upper()}{words[1:]}."


def clauses(findings: Sequence[Finding]) -> list[str]:
    """The parts of the sentence: drift first, then what changed, then what did not; at least one."""
    headlines = [finding for finding in findings if finding.headline and finding.verdict is not None]
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in headlines:
        if finding.measure != "kl":
            groups.setdefault((finding.measure, finding.of), []).append(finding)
    parts = [_drift(drift)] if (drift := select(headlines, measure="kl")) else []
    unchanged: dict[str, list[str]] = {}
    for group in groups.values():
        if any(finding.changed for finding in group):
            parts.append(_changed(group))
        else:
            unchanged.setdefault(_unchanged(group), []).append(_noun(group[0]))
    parts += [f"{words}: {listed(nouns)}" for words, nouns in unchanged.items()]
    return parts or ["nothing was judged"]


def repair_hint(base: str, tuned: str, findings: Sequence[Finding]) -> str:
    """How to give back what was forgotten, where the base's own text surely drifted; else empty."""
    drift = [one for one in select(findings, measure="kl") if one.subject == "self" and one.headline and one.changed]
    if not drift:
        return ""
    return f"To give back what it forgot, without its data: {repair_command(base, tuned, drift[0].value)}"


def _drift(findings: Sequence[Finding]) -> str:
    drifted = [one for one in findings if one.changed]
    unsure = [one.subject for one in findings if one.verdict is Verdict.NO_EVIDENCE]
    number = counted(len(findings), "text")
    if len(unsure) == len(findings):
        return f"There is not enough evidence to say whether the tuned model drifted on {number}"
    short = f", with not enough evidence on {named(unsure)}" if unsure else ""
    if not drifted:
        where = {1: "the text read", 2: "both texts read"}.get(len(findings), f"all {number} read")
        return f"The tuned model’s drift from its base is {NOT_TOLD} on {where if not unsure else 'the others'}{short}"
    most = max(drifted, key=lambda one: one.value)
    where = f"on {len(drifted)} of {number}, most on {most.label}" if len(findings) > 1 else f"on {most.label}"
    return f"The tuned model drifted from its base {where} (KL {shown_number(most.value, '.3g')} nats per token){short}"


def _noun(finding: Finding) -> str:
    noun = finding.line.noun or finding.line.label
    return f"{noun} of {finding.of}" if finding.of else noun


def _changed(findings: Sequence[Finding]) -> str:
    changed: dict[str, list[str]] = {}
    for finding in findings:
        if finding.changed:
            changed.setdefault(finding.words, []).append(f"{finding.label} ({_size(finding)})")
    return f"{_noun(findings[0])}: {', '.join(f'{words} on {named(names)}' for words, names in changed.items())}"


def _unchanged(findings: Sequence[Finding]) -> str:
    for verdict in (Verdict.CANNOT, Verdict.NO_EVIDENCE):
        if all(finding.verdict is verdict for finding in findings):
            return verdict.value
    return findings[0].line.same


def _size(finding: Finding) -> str:
    if finding.line.unit == SHARE:
        if finding.line.null == 0.0:
            return f"{shown_number(finding.value * 100, '+.1f')} points"
        return shown_number(finding.value, ".0%")
    return shown_number(finding.value, "+.3f")
