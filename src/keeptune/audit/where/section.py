"""The section that says where the drift sits: in which tokens, which passages, which layers, and what both write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from keeptune.audit.section import Cost, Loaded, Measured, Section
from keeptune.audit.texts import SELF, TextSettings
from keeptune.audit.where.collector import WhereText
from keeptune.audit.where.layers import WINDOW_TOKENS, WINDOWS, LayerProfile, layer_profile
from keeptune.audit.where.passages import CONTINUATIONS, NEW_TOKENS, continuations, worst
from keeptune.audit.where.reading import read_text
from keeptune.audit.where.view import WhereDetails, where_view
from keeptune.report.codec import once
from keeptune.report.document import SectionRecord
from keeptune.report.finding import Finding, found
from keeptune.report.view import View
from keeptune.report.words import counted
from keeptune.stats import Interval


class WhereDrift(Section[TextSettings]):
    """Classes of tokens, passages, layers and continuations."""

    name, title, reads_texts = "where", "Where the drift sits", True

    def cost(self) -> Cost:
        """Comparing layers takes most of it: two passes of the sample for each layer."""
        tokens = WINDOWS * WINDOW_TOKENS
        return Cost(
            items=WINDOWS + CONTINUATIONS,
            read=2 * tokens,
            read_a_layer=2 * tokens,
            written=CONTINUATIONS * NEW_TOKENS,
        )

    def measure(self, loaded: Loaded) -> Measured:
        """The pass over a text is that of the section of texts, and is not made again."""
        read = {name: read_text(loaded, name).where for name in loaded.rows}
        rows, steps = loaded.rows[SELF], loaded.steps
        layers = once(
            steps.of(rows=rows), "layers", LayerProfile, lambda: layer_profile(loaded.base, loaded.tuned, rows, SELF)
        )
        passages = worst(replace(one, text=name) for name, of in read.items() for one in of.passages)
        written = continuations(loaded.base, loaded.tuned, loaded.tokenizer, loaded.rows, steps)
        findings = [one for name, of in read.items() for one in class_findings(self.name, name, of)]
        methods = []
        if not layers.unavailable:
            findings += layer_findings(self.name, layers)
            methods.append(
                f"Layers were compared on {counted(layers.windows, 'window')} with "
                f"{counted(layers.tokens, 'token')} of {layers.text}: a sample, so that its KL differs a little."
            )
        details = WhereDetails(passages=passages, continuations=written, layers=replace(layers, layers=[]))
        return Measured(findings=findings, methods=methods, details=details)

    @classmethod
    def view(cls, record: SectionRecord, findings: Sequence[Finding]) -> View:
        """Charts of the classes and layers, the passages token by token, and the continuations."""
        return where_view(record, findings)


def class_findings(section: str, text: str, where: WhereText) -> Iterator[Finding]:
    """Of each class its shares of a text's KL and tokens, and its KL and change of loss."""
    for group, classes in where.classes.items():
        for one in classes:
            documents = one.kl.documents
            values = {
                "class_kl_share": None if one.kl_share is None else _bare(one.kl_share, documents),
                "class_token_share": _bare(one.token_share, documents),
                "class_kl": one.kl,
                "class_ce_change": one.ce_change,
            }
            for measure, interval in values.items():
                if interval is not None:
                    yield found(section, text, measure, interval, "document", part=f"{group}: {one.name}")


def layer_findings(section: str, profile: LayerProfile) -> Iterator[Finding]:
    """What putting back each layer, its output, or all else leaves of the KL."""
    for measure, interval in (("layer_kl", profile.kl), ("rest_restored", profile.rest_restored)):
        if interval is not None:
            yield found(section, profile.text, measure, interval, "document")
    for layer in profile.layers:
        for name in ("moved", "patched", "restored", "repaired"):
            interval = getattr(layer, name)
            yield found(section, profile.text, f"layer_{name}", interval, "document", part=f"layer {layer.layer}")


def _bare(value: float, documents: int) -> Interval:
    return Interval(value=value, low=None, high=None, documents=documents)
