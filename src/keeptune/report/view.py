"""What a page and the terminal show of findings: the table, the forest chart, and the view of one section."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from keeptune.report.chart import Chart
from keeptune.report.document import SectionRecord
from keeptune.report.finding import Finding, Level
from keeptune.report.forest import Point, forest_chart
from keeptune.report.measures import Measure, measure_of
from keeptune.report.table import Cell, Column, Table, count, interval, left, number, p_value, text
from keeptune.report.words import counted, shown_number


@dataclass(frozen=True, kw_only=True)
class View:
    """A section for people."""

    name: str
    title: str
    prose: str = ""
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    folded: Sequence[tuple[str, Table]] = ()
    """More tables, each under a line that unfolds it; on paper they are unfolded."""
    template: str = ""
    """A template in `templates/` that shows what else there is; it is given `content`."""
    content: Mapping[str, object] = field(default_factory=dict)
    terminal: Sequence[Table] | None = None
    """The tables of the terminal, where they are others."""
    lines: Sequence[str] = ()
    """Sentences below them."""


def default_view(record: SectionRecord, findings: Sequence[Finding], prose: str = "", **more: object) -> View:
    """A table of the headline findings, and a chart of each of their measures with more than a number to show."""
    shown = [finding for finding in findings if finding.headline]
    table = findings_table(record.name, record.title, shown)
    charts = [forest_of(record.name, measure, shown) for measure in dict.fromkeys(one.measure for one in shown)]
    terminal = [brief_table(record.name, record.title, shown)]
    made = View(
        name=record.name,
        title=record.title,
        prose=prose,
        charts=charts,
        tables=[table] if shown else [],
        terminal=terminal,
    )
    return View(**{**vars(made), **more})  # type: ignore[arg-type]


# The columns that stand in a table only where a row has something in them.
_OPTIONAL: dict[Column, Callable[[Finding], Cell | None]] = {
    Column("base"): lambda one: _level(one.base, one),
    Column("tuned"): lambda one: _level(one.tuned, one),
}
_MORE: dict[Column, Callable[[Finding], Cell | None]] = {
    Column("lost", unit="base only"): lambda one: None if one.lost is None else count(one.lost),
    Column("gained", unit="tuned only"): lambda one: None if one.gained is None else count(one.gained),
    Column("noise floor", "noise_floor", "what rounding can do"): lambda one: (
        number(one.noise_floor, ".2g") if one.noise_floor else None
    ),
    Column("p", unit="all together"): lambda one: None if one.p_together is None else p_value(one.p_together),
}


def findings_table(name: str, caption: str, findings: Sequence[Finding], *, of_one: bool = False) -> Table:
    """Findings a row each, with the columns that any of them fills; `of_one` subject, which is not named again."""
    before, after = ({c: of for c, of in some.items() if any(map(of, findings))} for some in (_OPTIONAL, _MORE))
    about = _about(findings)
    rows = [
        {
            **({} if of_one else {left("on"): text(finding.subject)}),
            left("measure"): text(
                finding.line.label if of_one else measure_words(finding),
                finding.measure,
                about=about[place],
            ),
            **({left("part"): text(finding.part)} if any(one.part for one in findings) else {}),
            **{column: of(finding) or number(None) for column, of in before.items()},
            Column("value", unit="95 % interval"): value_cell(finding),
            **{column: of(finding) or number(None) for column, of in after.items()},
            left("verdict"): verdict_cell(finding),
            left("n", "n_of"): text(counted(finding.n, finding.unit_of_n)),
        }
        for place, finding in enumerate(findings)
    ]
    return Table.of(name, caption, rows)


def brief_table(name: str, caption: str, findings: Sequence[Finding]) -> Table:
    """Findings in few columns, for a summary and for a terminal."""
    levels, about = any(one.base for one in findings), _about(findings)
    rows = [
        {
            left("on"): text(finding.subject),
            left("measure"): text(measure_words(finding), finding.measure, more=finding.part, about=about[place]),
            Column("value", unit="95 % interval"): value_cell(finding),
            left("verdict"): verdict_cell(finding),
            **({Column("base → tuned", "levels", wide_only=True): _both(finding)} if levels else {}),
            Column("n", "n_of", left=True, page_only=True): text(counted(finding.n, finding.unit_of_n)),
        }
        for place, finding in enumerate(findings)
    ]
    return Table.of(name, caption, rows)


def _about(findings: Sequence[Finding]) -> list[str]:
    """Where the page says what a measure means: a link at its first mention in a table, no more for the keyboard."""
    return [
        "" if one.measure in (other.measure for other in findings[:place]) else f"measure-{one.measure}"
        for place, one in enumerate(findings)
    ]


def _both(finding: Finding) -> Cell:
    """Both models' levels; in the CSV a column each."""
    levels = [level.value for level in (finding.base, finding.tuned) if level]
    shown = " → ".join(shown_number(value, finding.line.form.lstrip("+")) for value in levels)
    raw = dict(zip(("_base", "_tuned"), levels, strict=True)) if levels else {}
    return Cell(shown=shown, raw={"_base": None, "_tuned": None, **raw})


def measure_words(finding: Finding) -> str:
    """What a table calls it: `change of refusals, harmful prompts`."""
    return f"{finding.line.label}, {finding.of}" if finding.of else finding.line.label


def value_cell(finding: Finding) -> Cell:
    """`+0.0211 [+0.01, +0.03]`; in the CSV with all digits."""
    return interval(finding.interval.as_dict(), finding.line.form)


def verdict_cell(finding: Finding) -> Cell:
    """The verdict in words, with a mark that differs in form and not in color alone."""
    if finding.verdict is None:
        return text("")
    mark = "changed" if finding.worse else "improved" if finding.changed else "unsure" if finding.p is None else "same"
    return text(finding.words, finding.verdict.value, mark=mark)


def forest_of(section: str, measure: str, findings: Sequence[Finding]) -> Chart:
    """One measure of several subjects: values with their intervals, a row a subject."""
    line, own = measure_of(measure), [finding for finding in findings if finding.measure == measure]
    floors = {finding.subject: finding.noise_floor for finding in own if finding.noise_floor}
    return forest_chart(
        [Point(one.subject, one.part, one.interval.as_dict(), counted(one.n, one.unit_of_n)) for one in own],
        f"{line.label}, {'per cent' if '%' in line.form else line.unit}",
        line.form,
        name=f"{section}-{measure}",
        title=line.label[0].upper() + line.label[1:],
        sentence=line.says + (_SIDES[line.better] if line.better and line.null == 0 and "+" in line.form else ""),
        floors=floors,
        null=line.null,
    )


_SIDES = {
    "lower": " Right of 0 is worse; a line that crosses 0 is a change that chance could have made.",
    "higher": " Left of 0 is worse; a line that crosses 0 is a change that chance could have made.",
}


def definitions(measures: Sequence[str]) -> list[Measure]:
    """The lines of the table of measures that a page explains."""
    return [measure_of(name) for name in dict.fromkeys(measures)]


def _level(level: Level | None, finding: Finding) -> Cell | None:
    if level is None:
        return None
    given = {"value": level.value, "low": level.low, "high": level.high}
    return interval(given, finding.line.form.lstrip("+"), n=finding.n)
