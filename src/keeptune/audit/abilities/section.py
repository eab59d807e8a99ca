"""The section of abilities: what users report losing, asked of both models with the items of a suite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from keeptune.audit.abilities.compare import RULE, Standing
from keeptune.audit.abilities.item import Ability, Name
from keeptune.audit.abilities.measure import Answer, Result, measure_ability
from keeptune.audit.abilities.suite import standard
from keeptune.audit.abilities.text import Fault, fault
from keeptune.audit.section import Cost, Loaded, Measured, Section, digest_of, paired
from keeptune.errors import ConfigError
from keeptune.report.codec import from_json
from keeptune.report.document import SectionRecord, Subject
from keeptune.report.finding import Finding
from keeptune.report.measures import SHARE, Measure, Verdict, register
from keeptune.report.table import Column, Table, count, left, text
from keeptune.report.view import View, default_view, findings_table
from keeptune.report.words import counted

register(
    Measure(
        name="passed",
        label="change of items passed",
        unit=SHARE,
        says="How many more, or below 0 fewer, items of an ability the tuned model passes.",
        definition="share of items passed by the tuned model − by the base, paired; p is McNemar's, exact",
        better="higher",
        null=0.0,
        noun="abilities",
        bound="fall",
    )
)
SUITES = {"standard": standard}
"""The suites by name."""
_BEFOREHAND = {Standing.CANNOT: Verdict.CANNOT, Standing.TOO_FEW: Verdict.NO_EVIDENCE}
_FAULTS: dict[Fault, str] = {
    "empty": "no words",
    "loop": "a loop: one phrase over and over",
    "language": "in another language, or none",
}
_MARKS = {True: "same", False: "changed"}
_SHOWN, _CHARACTERS = 20, 300
_CHARACTERS_A_TOKEN = 4


@dataclass(frozen=True, kw_only=True)
class SuiteSettings:
    """The abilities that are asked."""

    suite: str | None = None
    """standard: abilities that users report losing (format, instructions, tool calls, thinking, sound answers, refusals
    both ways, multiple choice), asked with built-in items. By default they are not asked."""
    suite_items: int | None = None
    """At most so many items of each ability, evenly spaced; fewer are faster, and show only larger losses. By default
    all of them, 24 to 100."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        if self.suite not in (None, *SUITES):
            fix = f"name one of {', '.join(SUITES)}"
            raise ConfigError(f"there is no suite of abilities called {self.suite}", fix)
        if self.suite_items is not None and self.suite_items < 1:
            raise ConfigError(f"suite_items is {self.suite_items}", "give 1 or more")


class Abilities(Section[SuiteSettings]):
    """Change of the items passed, of every ability."""

    name, title, bounds = "abilities", "What it can still do", ("passed",)
    noun = "ability"

    def __init__(self, settings: SuiteSettings) -> None:
        super().__init__(settings)
        self.abilities = SUITES[settings.suite](settings.suite_items) if settings.suite else ()

    @classmethod
    def names(cls, settings: SuiteSettings) -> Sequence[str]:
        """The abilities."""
        return [name.value for name in Name] if settings.suite else []

    def not_asked(self) -> str:
        """Why there is nothing to measure."""
        return "" if self.abilities else "no --suite is given"

    def cost(self) -> Cost:
        """Every item is answered with as many tokens as its ability allows, but those for reasoning and tools."""
        asked = [ability for ability in self.abilities if not ability.markup]
        letters = sum(len(item.prompt) for ability in asked for item in ability.items)
        letters += sum(
            len(one.question) * len(one.choices) + sum(map(len, one.choices))
            for ability in asked
            for one in ability.questions
        )
        written = sum(len(ability.items) * ability.new_tokens for ability in asked)
        items = sum(ability.size for ability in asked)
        return Cost(items=items, read=letters // _CHARACTERS_A_TOKEN, written=written)

    def measure(self, loaded: Loaded) -> Measured:
        """Every ability, the answers kept as text."""
        given = loaded.base, loaded.tuned, loaded.tokenizer
        results = [measure_ability(*given, ability, loaded.steps) for ability in self.abilities]
        pairs = list(zip(self.abilities, results, strict=True))
        asked = [(ability, result) for ability, result in pairs if result.answers]
        methods = [f"{ability.name}: {_method(ability, result)}" for ability, result in pairs]
        return Measured(
            findings=[ability_finding(self.name, result) for _, result in asked],
            subjects=[_subject(ability, result) for ability, result in asked],
            methods=[*methods, RULE],
            details={result.name.value: result for result in results},
        )

    @classmethod
    def view(cls, record: SectionRecord, findings: Sequence[Finding]) -> View:
        """The table and the chart of all abilities; folded, items by kind and the answers that changed."""
        results = list(from_json(dict[str, Result], record.details).values())
        tables = [_kinds(results), _faults(results), _changed(results)]
        return default_view(
            record,
            findings,
            "Both models were given the same requests, and a rule tells whether an answer passes.",
            tables=[findings_table(record.name, record.title, findings)],
            folded=[(table.caption, table) for table in tables if table.rows],
            lines=[f"{one.name}: {one.standing}: {one.reason}" for one in results if one.reason],
        )


def ability_finding(section: str, result: Result) -> Finding:
    """What both models' answers to an ability's items say; what cannot be told stays out of the summary."""
    told, able = _BEFOREHAND.get(result.standing), result.standing == Standing.ABLE
    given = section, result.name.value, "passed", result.base, result.tuned
    return paired(*given, "item", beforehand=told, headline=able)


def _subject(ability: Ability, result: Result) -> Subject:
    digest = digest_of([*(asdict(one) for one in ability.questions), *(answer.prompt for answer in result.answers)])
    size = len(result.answers)
    return Subject(name=ability.name, kind="prompts", source="built in", n=size, unit_of_n="item", digest=digest)


def _method(ability: Ability, result: Result) -> str:
    if result.reason:
        return f"{result.standing}: {result.reason}."
    short = f" {counted(result.left_out, 'item')} could not be asked and are left out." if result.left_out else ""
    length = f", answered with the likeliest tokens, at most {ability.new_tokens}" if ability.items else ""
    return (
        f"{counted(len(result.answers), 'built-in item')}{length}; passed where {ability.about}. A model that has not "
        f"read the request would pass {result.chance:.0%}.{short}"
    )


def _kinds(results: Sequence[Result]) -> Table:
    rows = [
        {
            left("ability"): text(result.name),
            left("kind"): text(kind),
            Column("items"): count(len(of_kind)),
            Column("base"): count(sum(answer.base_passes for answer in of_kind)),
            Column("tuned"): count(sum(answer.tuned_passes for answer in of_kind)),
        }
        for result in results
        for kind, of_kind in _by_kind(result)
    ]
    return Table.of("abilities-kinds", "Items passed by kind", rows)


def _by_kind(result: Result) -> Iterator[tuple[str, list[Answer]]]:
    for kind in dict.fromkeys(answer.kind for answer in result.answers):
        yield kind, [answer for answer in result.answers if answer.kind == kind]


def _faults(results: Sequence[Result]) -> Table:
    rows = [
        {
            left("fault"): text(title),
            Column("base"): count(sum(fault(answer.base) == name for answer in result.answers)),
            Column("tuned"): count(sum(fault(answer.tuned) == name for answer in result.answers)),
        }
        for result in results
        if result.name == Name.SOUND and result.answers
        for name, title in _FAULTS.items()
    ]
    return Table.of("abilities-faults", "What is wrong with answers that are not sound", rows)


def _changed(results: Sequence[Result]) -> Table:
    rows = [
        {
            left("ability"): text(result.name),
            left("asked"): text(_shortened(answer.prompt)),
            left("base"): text(_shortened(answer.base), mark=_MARKS[answer.base_passes]),
            left("tuned"): text(_shortened(answer.tuned), mark=_MARKS[answer.tuned_passes]),
        }
        for result in results
        for answer in [one for one in result.answers if one.base_passes != one.tuned_passes][:_SHOWN]
    ]
    return Table.of("abilities-answers", "Answers that changed", rows)


def _shortened(words: str) -> str:
    return f"{words[:_CHARACTERS]} […]" if len(words) > _CHARACTERS else words
