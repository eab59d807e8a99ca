"""The figures and claims of the papers that the lab is about, from `papers.toml`, those without rows of ours included.

A figure names the experiments that test it. A claim that none of them tests says why it cannot be tested here, or which
of them will test it once it has run: it is left out as soon as that experiment has results.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from common.grid import LAB
from keeptune.errors import ConfigError

FILE = LAB / "papers.toml"


class State(StrEnum):
    """What stands in the place of a verdict. The value is the word in tables and in verdicts.json."""

    NOT_RUN = "not run yet"
    """An experiment is designed, its bounds are committed, and it has no results."""
    NOT_TESTABLE = "not testable here"
    """No experiment that these machines can run would test it."""


@dataclass(frozen=True, kw_only=True)
class Untested:
    """A claim of a paper for which the lab has no rows."""

    claim: str
    """The claim, as a sentence."""
    paper: str
    """The paper's number, or what its figure shows."""
    because: str | None = None
    """Why it cannot be tested here."""
    experiment: str | None = None
    """The experiment that will test it. Give `because` or `experiment`."""

    def __post_init__(self) -> None:
        """Refuse a claim with both or neither.

        Raises:
            ConfigError: `because` and `experiment` are both given, or both missing.
        """
        if (self.because is None) == (self.experiment is None):
            raise ConfigError(f"papers.toml: {self.claim}", "give `because` or `experiment`, one of them")

    @property
    def state(self) -> State:
        """What is said in the place of a verdict."""
        return State.NOT_RUN if self.experiment else State.NOT_TESTABLE

    @property
    def waits(self) -> bool:
        """Whether the claim still belongs into the table: once its experiment has results, they take its place."""
        return self.experiment is None or not has_results(self.experiment)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure or table of a paper, or a result in its text."""

    name: str
    """What it is called in the paper, or by its authors."""
    setting: str
    """The paper's models, texts and training, in short."""
    experiments: tuple[str, ...] = ()
    """The lab's experiments on it, with and without results."""
    untested: tuple[Untested, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A paper and its figures, in its order."""

    title: str
    figures: tuple[Figure, ...]


def has_results(experiment: str) -> bool:
    """Whether rows of an experiment are committed."""
    return (LAB / experiment / "results.csv").is_file()


def setting_of(experiment: str) -> str:
    """An experiment's own setting in short, from `[experiment]` in its grid.toml."""
    return str(tomllib.loads((LAB / experiment / "grid.toml").read_text(encoding="utf-8"))["experiment"]["setting"])


def papers(file: Path = FILE) -> list[Paper]:
    """The papers of a file, checked.

    Raises:
        ConfigError: a field is unknown or missing, an experiment has no folder or stands under two figures, or a claim
            waits for an experiment that its figure does not name.
    """
    tables = tomllib.loads(file.read_text(encoding="utf-8"))["paper"]
    try:
        found = [Paper(title=table["title"], figures=tuple(map(_figure, table["figure"]))) for table in tables]
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{file.name}: {error}", "give figures and claims the fields of common/papers.py") from error
    names = [name for paper in found for figure in paper.figures for name in figure.experiments]
    for name in names:
        if not (LAB / name / "grid.toml").is_file():
            raise ConfigError(f"{file.name}: there is no experiment {name}", "correct its name")
        if names.count(name) > 1:
            raise ConfigError(f"{file.name}: {name} stands under two figures", "leave one of them")
    for figure in (figure for paper in found for figure in paper.figures):
        for claim in figure.untested:
            if claim.experiment and claim.experiment not in figure.experiments:
                raise ConfigError(
                    f"{file.name}: “{claim.claim}” waits for {claim.experiment}",
                    f"name it in `experiments` of “{figure.name}” too",
                )
    return found


def _figure(table: dict[str, Any]) -> Figure:
    given = {**table, "experiments": tuple(table.get("experiments", ()))}
    return Figure(**{**given, "untested": tuple(Untested(**claim) for claim in table.get("untested", ()))})
