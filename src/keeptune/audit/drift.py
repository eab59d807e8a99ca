"""The section of texts: how far the tuned model's predictions drifted, and how much worse or better it predicts each.

Two things that are easily taken for one. Drift, KL(base‖tuned), is a distance: it has no sign. The change of loss has
one: above 0 the text is predicted worse, and something of it was forgotten; below 0 better. Both can be there at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from keeptune.audit.meter import Drift
from keeptune.audit.section import Cost, Loaded, Measured, Section, digest_of
from keeptune.audit.texts import FRESH, TextSettings, text_sources
from keeptune.audit.verdict import FLOOR_DOCUMENTS, how
from keeptune.audit.where.reading import read_text
from keeptune.data.tokens import EncodedRow
from keeptune.report.document import SectionRecord, Subject
from keeptune.report.finding import About, Finding, Level, found
from keeptune.report.view import View, brief_table, default_view, findings_table
from keeptune.report.words import counted
from keeptune.stats import METHOD

LEVELS = {"ce_change": ("ce_base", "ce"), "l_f_rise": ("l_f_base", "l_f")}
JUDGED = ("kl", "ce_change", "l_f_rise", "agreement")
HEADLINE = ("kl", "ce_change")


class Texts(Section[TextSettings]):
    """KL, the change of loss, the rise of L_f and top-1 agreement on every text."""

    name, title, reads_texts, bounds = "drift", "How far it drifted, text by text", True, JUDGED
    noun = "text"

    @classmethod
    def names(cls, settings: TextSettings) -> Sequence[str]:
        """The texts, with the base's own chats where it writes them."""
        return list(text_sources(settings.text, chat=True))

    def cost(self) -> Cost:
        """Each text is read by both models, a small part of it again for the noise floor; the base writes its own."""
        settings, texts, fresh = self.settings, len(self.names(self.settings)), len(FRESH)
        windows = fresh * settings.docs + (texts - fresh) * settings.docs * settings.windows
        floors = texts * min(FLOOR_DOCUMENTS, settings.docs)
        return Cost(
            items=texts * settings.docs,
            read=(windows + floors) * settings.max_length,
            sampled=fresh * settings.docs * (settings.max_length - 1),
        )

    def measure(self, loaded: Loaded) -> Measured:
        """Every text, each in a step of its own."""
        findings, subjects, methods = list[Finding](), [], []
        for name, rows in loaded.rows.items():
            reading = read_text(loaded, name)
            drift = Drift.from_dict(reading.drift)
            findings += text_findings(self.name, name, drift, reading.floors)
            about = text_subject(name, loaded.sources[name], rows, drift)
            subjects.append(about)
            methods.append(
                f"{name} (source: {about.source}) was read on {counted(about.n, 'document')} with "
                f"{counted(about.tokens or 0, 'token')} that are predicted."
            )
        settings = self.settings
        methods += [
            f"Of each text at most {counted(settings.docs, 'document')}, evenly spaced; of each document at most "
            f"{counted(settings.windows, 'window')} of {counted(settings.max_length, 'token')}.",
            f"Noise floor: {how(loaded.base)}.",
            f"Intervals of what is read on texts: {METHOD} of documents.",
        ]
        return Measured(findings=findings, subjects=subjects, methods=methods)

    @classmethod
    def view(cls, record: SectionRecord, findings: Sequence[Finding]) -> View:
        """Drift and change of loss side by side, and every judged measure in the table."""
        judged = [finding for finding in findings if finding.verdict is not None]
        prose = (
            "The same texts, read by both models. Drift is a distance: how far the predictions moved, for better or "
            "worse. The change of loss says which: above 0 the tuned model predicts the text worse and has forgotten "
            "something of it, below 0 better. A value counts only where its whole interval lies beyond the noise floor."
        )
        table = findings_table("texts", "Drift and change of loss by text", judged)
        brief = [brief_table("texts", "Drift and change of loss by text", judged)]
        return default_view(record, findings, prose, tables=[table], terminal=brief)


def text_findings(section: str, name: str, drift: Drift, floors: dict[str, float], part: str = "") -> list[Finding]:
    """Every measure of one text; those that rounding has a floor for are judged."""
    findings = []
    for name_of in (*JUDGED, "soft_ce", "entropy"):
        about: About = {"noise_floor": floors.get(name_of, 0.0), "part": part, "headline": name_of in HEADLINE}
        if name_of in LEVELS:
            base, tuned = (Level.of(drift.interval(of)) for of in LEVELS[name_of])
            about |= {"base": base, "tuned": tuned}
        findings.append(found(section, name, name_of, drift.interval(name_of), "document", **about))
    return findings


def text_subject(name: str, source: str, rows: list[EncodedRow], drift: Drift) -> Subject:
    """What a text was, for a report."""
    return Subject(
        name=name,
        kind="text",
        source=source,
        n=len(drift.documents),
        unit_of_n="document",
        tokens=int(drift.tokens_D.sum()),
        digest=digest_of(rows),
    )
