"""Everything that `keeptune audit` can be told. The docstring under a field is its help text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from keeptune.audit.gate import Kind
from keeptune.audit.safety import named_prompts
from keeptune.audit.texts import named_sources, text_sources
from keeptune.data.rows import MAX_LENGTH
from keeptune.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """One audit: what is measured, on how much, and where the report goes."""

    base: str
    """The base model: a hub id, a folder, a .gguf file, or smollm2."""
    tuned: tuple[str, ...]
    """The tuned model, or an adapter on the base; with --stages the checkpoints in the order they were made."""
    out: str = "audit"
    """Folder of report.json and report.html. A stopped audit goes on there; finished parts are kept."""
    text: list[str] = field(default_factory=list)
    """NAME=SOURCE or an alias: a text to measure on, beside the base's own fresh text (self) and, for a chat model,
    its own fresh chats (self-chat), which are always read. Repeat it for more."""
    skip_bad_rows: bool = False
    """Leave out rows of --text that cannot be read; their number and the first of them are logged. By default the
    first such row is an error."""
    docs: int = 64
    """At most so many documents of each text, evenly spaced."""
    max_length: int = MAX_LENGTH
    """Tokens in a window of text."""
    windows: int = 4
    """At most so many windows of each document."""
    task: list[str] = field(default_factory=list)
    """Questions to answer: arc, mmlu or commonsenseqa from the hub, or NAME=FILE (jsonl or parquet) in one of their
    layouts. Repeat it for more."""
    items: int = 200
    """At most so many questions of each task, evenly spaced."""
    lm_eval: list[str] = field(default_factory=list)
    """A task of the lm-eval harness (pip install 'keeptune[eval]'), or a YAML file that describes one; its first
    --items questions. Repeat it for more."""
    harmful: list[str] = field(default_factory=list)
    """NAME=FILE or an alias (do-not-answer, harmbench): prompts that ought to be refused. A csv with a column goal or
    prompt, a text with one a line, or a jsonl. Repeat it for more."""
    harmless: list[str] = field(default_factory=list)
    """NAME=FILE: prompts that ought not to be refused; by default, beside --harmful, a built-in list of 60."""
    prompts: int = 100
    """At most so many prompts of each list, evenly spaced."""
    new_tokens: int = 64
    """Length of an answer to a prompt, at most."""
    judge: str | None = None
    """A model that judges which answers are refusals, beside string rules and likelihoods; loaded as a third."""
    recovery: str | None = None
    """Name of a text: tune both models briefly on half of it and read the other half, to tell spurious forgetting
    from lost knowledge. Needs the memory of training."""
    seed: int = 1
    """Of the fresh text."""
    shared_vocabulary: bool = False
    """Compare models whose vocabularies differ on the tokens that both have, and on the texts made of these alone."""

    def named(self) -> dict[str, Kind]:
        """Everything that has a name, and what it is.

        Raises:
            ConfigError: a name that is none, or is given twice.
        """
        kinds: dict[str, Kind] = {}
        by_kind: list[tuple[Kind, Iterable[str]]] = [
            ("text", text_sources(self.text, chat=True)),
            ("task", named_sources(self.task, "--task")),
            ("prompts", named_prompts(self.harmful, self.harmless_lists)),
        ]
        for kind, names in by_kind:
            for name in names:
                if name in kinds:
                    raise ConfigError(f"a {kinds[name]} and a {kind} are called {name}", "give each its own NAME")
                kinds[name] = kind
        return kinds

    @property
    def amount(self) -> dict[str, Any]:
        """How much of each text is read, as `keeptune.audit.texts.text_rows` takes it."""
        read = {"docs": self.docs, "length": self.max_length, "windows": self.windows, "seed": self.seed}
        return {**read, "skip_bad_rows": self.skip_bad_rows}

    @property
    def harmless_lists(self) -> list[str]:
        """The lists of harmless prompts: those given, else the built-in one, where there are harmful prompts."""
        return self.harmless or (["harmless"] if self.harmful else [])

    def __post_init__(self) -> None:
        """Validate the settings."""
        for name in ("docs", "windows", "items", "prompts", "new_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", "give 1 or more")
        if self.max_length < 2:
            raise ConfigError(f"max_length is {self.max_length}", "give 2 or more")
        if not self.tuned:
            raise ConfigError("no tuned model is named", "name a base and a tuned model: keeptune audit BASE TUNED")
        kinds = self.named()
        if self.recovery is not None and kinds.get(self.recovery) != "text":
            texts = ", ".join(name for name, kind in kinds.items() if kind == "text")
            raise ConfigError(f"--recovery {self.recovery} is no text of this audit", f"name one of {texts}")
