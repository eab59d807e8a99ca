"""The seam: a section of an audit measures one kind of thing, and everything else follows from its findings.

To add one, write a module and add it to `SECTIONS` in `keeptune.audit.settings`:

    @dataclass(frozen=True, kw_only=True)
    class LengthSettings:                       # its flags: the docstring under a field is the help
        long_answers: list[str] = field(default_factory=list)
        \"\"\"NAME=FILE: prompts whose answers are measured.\"\"\"

    register(Measure(name="length", label="change of length", unit="tokens", says="…", bound="rise"))

    class Lengths(Section[LengthSettings]):
        name, title, bounds = "lengths", "How long its answers are", ("length",)

        @classmethod
        def names(cls, settings): return [...]  # what --fail-above can name
        def not_asked(self): return "" if self.settings.long_answers else "no --long-answers is given"
        def cost(self): return Cost(items=12, written=12 * 64)
        def measure(self, loaded):              # both models are there; long work goes through `once(loaded.steps, …)`
            return Measured(findings=[found(self.name, "mine", "length", interval, "prompt", headline=True)])

The terminal, report.json, the page, Markdown, the gate, the sentence at the top and `keeptune compare` are functions of
the findings. A section that has more to show than numbers puts it into `Measured.details`, a typed value, and draws it
in a `view` of its own. The constructor reads and checks what the user named, before any model is loaded.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Generic, TypeVar, Unpack

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.paired import difference
from keeptune.data.tokens import EncodedRow
from keeptune.report.document import Model, SectionRecord, Subject
from keeptune.report.finding import About, Finding, Level, UnitOfN, found
from keeptune.report.measures import Verdict
from keeptune.report.view import View, default_view
from keeptune.stats import mcnemar, wilson
from keeptune.workspace import Steps

Settings = TypeVar("Settings")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The models, and where the report goes."""

    base: str
    """The base model: a hub id, a folder, a .gguf file, or smollm2."""
    tuned: tuple[str, ...]
    """The tuned model, or an adapter on the base; with --stages the checkpoints in the order they were made."""
    out: str = "audit"
    """Folder of report.json, report.html and findings.csv. A stopped audit goes on there; finished parts are kept."""
    shared_vocabulary: bool = False
    """Compare models whose vocabularies differ on the tokens that both have, and on the texts made of these alone."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """How much a section is going to do, as far as it is known before a model is loaded."""

    items: int = 0
    """Documents, questions or prompts."""
    read: int = 0
    """Tokens that each model reads, at most."""
    written: int = 0
    """Tokens that each model writes, at most."""
    sampled: int = 0
    """Tokens of its own text that the base samples."""
    read_a_layer: int = 0
    """Tokens that are read once for each layer of the tuned model."""
    trained: int = 0
    """Tokens that each model is trained on, in its own memory."""

    def __add__(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What every section is measured with."""

    base: PreTrainedModel
    second: PreTrainedModel | None
    """The tuned model; None where a section loads checkpoints by itself."""
    tokenizer: PreTrainedTokenizerBase
    """The base's."""
    rows: dict[str, list[EncodedRow]]
    """The rows of each text; empty where no section reads texts."""
    sources: dict[str, str]
    """Where each text comes from."""
    vocabulary: str | None
    """In words how the vocabularies differ, where they do."""
    steps: Steps
    """Bound to both models: `once(loaded.steps.of(given=…), "name", Type, compute)` keeps what `compute` returns."""

    @property
    def tuned(self) -> PreTrainedModel:
        """The tuned model."""
        if self.second is None:
            raise ValueError("no tuned model was loaded: the section says that it compares none")
        return self.second

    @property
    def models(self) -> dict[str, PreTrainedModel]:
        """Both by their role."""
        return {"base": self.base, "tuned": self.tuned}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a section found."""

    findings: list[Finding]
    subjects: list[Subject] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    """How it was measured, in sentences for the end of the page."""
    details: object = None
    """What the section's own view shows beside the findings: a frozen dataclass, or a dict of such."""
    tuned: list[Model] = field(default_factory=list)
    """The models that it loaded by itself."""


class Section(ABC, Generic[Settings]):
    """One kind of thing that an audit measures; see the module for how to add one."""

    name: ClassVar[str]
    """What --only and --skip call it, and its key in report.json."""
    title: ClassVar[str]
    """Its heading on the page."""
    noun: ClassVar[str] = "subject"
    """What one of its subjects is: a text, a task."""
    reads_texts: ClassVar[bool] = False
    """Whether `Loaded.rows` has to be there."""
    compares: ClassVar[bool] = True
    """Whether `Loaded.tuned` has to be there."""
    bounds: ClassVar[tuple[str, ...]] = ()
    """The measures of its findings that `--fail-above` can bound."""

    def __init__(self, settings: Settings) -> None:
        """Read and check what the user named.

        Raises:
            ConfigError, SourceError: settings that do not fit, or something that cannot be read.
        """
        self.settings = settings

    @classmethod
    def names(cls, settings: Settings) -> Sequence[str]:
        """The names of its subjects."""
        return ()

    def not_asked(self) -> str:
        """Why there is nothing to measure; empty where there is."""
        return ""

    def cost(self) -> Cost:
        """How much there is to do."""
        return Cost()

    @abstractmethod
    def measure(self, loaded: Loaded) -> Measured:
        """Measure both models.

        Raises:
            KeeptuneError: it cannot be measured; the report then says so of this section.
        """

    @classmethod
    def view(cls, record: SectionRecord, findings: Sequence[Finding]) -> View:
        """What the page and the terminal show of it: by default a table and a chart of its headline findings."""
        return default_view(record, findings)


AnySection = type[Section[Any]]
"""A section, whatever its settings."""


def digest_of(given: object) -> str:
    """sha256 of what the models were given, a JSON value."""
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


def paired(
    section: str,
    subject: str,
    measure: str,
    base: Sequence[bool],
    tuned: Sequence[bool],
    unit_of_n: UnitOfN,
    /,
    *,
    judged: bool = True,
    beforehand: Verdict | None = None,
    **about: Unpack[About],
) -> Finding:
    """The change of a share of items, each of which both models have or have not; p is McNemar's, exact.

    Args:
        base, tuned: for every item whether the model has it, one or more.
    """
    lost = sum(was and not now for was, now in zip(base, tuned, strict=True))
    gained = sum(now and not was for was, now in zip(base, tuned, strict=True))
    levels = [Level.of(wilson(sum(of), len(base))) for of in (base, tuned)]
    about |= {"base": levels[0], "tuned": levels[1], "lost": lost, "gained": gained}
    change, p = difference(lost, gained, len(base)), mcnemar(lost, gained)
    return found(section, subject, measure, change, unit_of_n, judged=judged, beforehand=beforehand, p=p, **about)
