"""Everything that `keeptune audit` can be told, and its sections: one of two files that a new section touches.

The docstring under a field is its help text. `AuditSettings` inherits the settings of every section.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from keeptune.audit.abilities.section import Abilities, SuiteSettings
from keeptune.audit.drift import Texts
from keeptune.audit.safety.section import Refusals, RefusalSettings
from keeptune.audit.section import AnySection, ModelSettings
from keeptune.audit.tasks.harness import Harness, HarnessSettings
from keeptune.audit.tasks.section import Tasks
from keeptune.audit.texts import TextSettings
from keeptune.audit.where.section import WhereDrift
from keeptune.errors import ConfigError
from keeptune.report.trackers import check_trackers

SECTIONS: tuple[AnySection, ...] = (Texts, Tasks, Harness, Abilities, Refusals, WhereDrift)
"""The sections of an audit, in the order of the page."""


QUICK = {"docs": 16, "windows": 1, "max_length": 128, "items": 24, "prompts": 16, "new_tokens": 24, "suite_items": 8}
"""The most of each that a quick audit measures: enough documents, items and prompts for a verdict, and no more."""
LONG = ("where",)
"""The sections that a quick audit leaves out, unless they are asked for by name."""


@dataclass(frozen=True, kw_only=True)
class AuditSettings(RefusalSettings, SuiteSettings, HarnessSettings, TextSettings, ModelSettings):
    """One audit: what is measured, on how much, and where the report goes."""

    only: list[str] = field(default_factory=list)
    """Measure these sections alone: drift, tasks, lm_eval, abilities, refusals, where, recovery. Repeat it for
    more."""
    skip: list[str] = field(default_factory=list)
    """Leave these sections out, such as where, which takes over half of the time. Repeat it for more."""
    strict: bool = False
    """Exit with code 1 also where a section failed, or has too little evidence for a verdict."""
    quick: bool = False
    """Measure small samples, the same ones each time, as for use while a model is trained: at most 16 documents of 128
    tokens, 24 items and 16 prompts, without the section where; only large changes show. Under a minute for a model of
    135 million weights on two cores, once its base has written its own text, which is kept for the next audits."""
    report_to: list[str] = field(default_factory=list)
    """Send the judged findings to trackio, tensorboard or wandb, which have to be installed. Repeat it for more."""
    recovery: str | None = None
    """Name of a text: tune both models briefly on half of it and read the other half, to tell spurious forgetting
    from lost knowledge. Needs the memory of training."""

    def chosen(self, sections: Sequence[AnySection] = SECTIONS) -> list[AnySection]:
        """The sections that --only and --skip leave.

        Raises:
            ConfigError: there is no section of a name.
        """
        known = [section.name for section in sections]
        for flag, names in (("--only", self.only), ("--skip", self.skip)):
            for name in names:
                if name not in known:
                    raise ConfigError(f"{flag} {name}: there is no such section", f"name one of {', '.join(known)}")
        left_out = {*self.skip, *(LONG if self.quick and not self.only else ())}
        return [one for one in sections if one.name in (self.only or known) and one.name not in left_out]

    def named(self, sections: Sequence[AnySection] = SECTIONS) -> dict[str, AnySection]:
        """Everything that has a name, and the section that measures it.

        Raises:
            ConfigError: a name that is none, or is given twice.
        """
        named: dict[str, AnySection] = {}
        for section in sections:
            for name in section.names(self):
                if name in named:
                    raise ConfigError(
                        f"a {named[name].noun} and a {section.noun} are called {name}", "give each its own NAME"
                    )
                named[name] = section
        return named

    def __post_init__(self) -> None:
        """Validate the settings, those of each section by its own rules too."""
        if self.quick:
            for name, most in QUICK.items():
                object.__setattr__(self, name, min(getattr(self, name) or most, most))
        check_trackers(self.report_to)
        for kind in AuditSettings.__mro__[1:]:
            if check := vars(kind).get("__post_init__"):
                check(self)
        for name in ("docs", "windows", "items", "prompts", "new_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}", "give 1 or more")
        if self.max_length < 2:
            raise ConfigError(f"max_length is {self.max_length}", "give 2 or more")
        if not self.tuned:
            raise ConfigError("no tuned model is named", "name a base and a tuned model: keeptune audit BASE TUNED")
        texts = Texts.names(self)
        self.named()
        if self.recovery is not None and self.recovery not in texts:
            raise ConfigError(f"--recovery {self.recovery} is no text of this audit", f"name one of {', '.join(texts)}")
