"""`keeptune audit`: what a tuned model forgot."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from keeptune.audit.settings import AuditSettings
from keeptune.cli.arguments import Base, Hidden

_BOUND_BROKEN = 1


@Parameter(name="*", negative="")
@dataclass(frozen=True, kw_only=True)
class _Flags(AuditSettings):
    """AuditSettings as flags; the models come by position."""

    base: Annotated[str, Hidden] = ""
    tuned: Annotated[tuple[str, ...], Hidden] = ("",)


def audit(
    base: Base,
    *tuned: Annotated[
        str, Parameter(help="The tuned model, or an adapter on the base; with --stages every checkpoint in order.")
    ],
    settings: _Flags | None = None,
    stages: Annotated[
        bool, Parameter(help="The tuned models are checkpoints of one run, each made from the one before.", negative="")
    ] = False,
    fail_above: Annotated[
        list[str],
        Parameter(
            help="[NAME:]MEASURE=NUMBER: exit with code 1 where kl, l_f_rise, ce_change or broken is surely above the "
            "number, or agreement, accuracy or refusals fell by surely more (agreement=-0.03). Repeat it for more.",
            negative="",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    junit: Annotated[Path | None, Parameter(help="File for the bounds as JUnit XML; needs --fail-above.")] = None,
    markdown: Annotated[Path | None, Parameter(help="File for the tables as Markdown.")] = None,
    plan: Annotated[
        bool,
        Parameter(
            help="Print what each section would do, its minutes and memory, and do nothing more. Loads the models and "
            "probes their speed for a few seconds.",
            negative="",
        ),
    ] = False,
) -> None:
    """Audit a tuned model; see `keeptune.cli.help`."""
    from keeptune.audit.continual.section import Continual
    from keeptune.audit.gate import broken, parse_bounds
    from keeptune.audit.headline import repair_hint, sentence
    from keeptune.audit.page import status_table, summary_table, views_of
    from keeptune.audit.planned import plan as plan_of
    from keeptune.audit.run import audit as run
    from keeptune.audit.section import AnySection
    from keeptune.audit.settings import SECTIONS
    from keeptune.errors import ConfigError
    from keeptune.log import say
    from keeptune.probes.recovery import Recovery
    from keeptune.report.document import OutcomeStatus, Status
    from keeptune.report.files import write_junit, write_markdown
    from keeptune.report.terminal import print_tables, print_views
    from keeptune.workspace import alone

    if junit and not fail_above:
        raise ConfigError("--junit needs at least one --fail-above bound", "add --fail-above kl=0.02")
    settings = replace(settings or _Flags(), base=base, tuned=tuned)
    if stages and fail_above:
        raise ConfigError("--stages gives no verdict to bound", "audit the last checkpoint alone")
    if len(tuned) > 1 and not stages:
        raise ConfigError(
            f"{len(tuned)} tuned models are named",
            "add --stages if each was tuned from the one before; else audit one at a time, then keeptune compare",
        )
    sections: tuple[AnySection, ...] = (Continual,) if stages else (*SECTIONS, Recovery)
    bounds = parse_bounds(fail_above, settings.named(settings.chosen(sections)))
    if plan:
        planned = plan_of(settings, sections)
        print_tables(planned.table(), *planned.lines())
        return
    with alone(Path(settings.out)):
        report = run(settings, bounds, sections)
    print_views(views_of(report, sections))
    if any(record.status in (Status.ERROR, Status.NO_EVIDENCE) for record in report.sections):
        print_tables(status_table(report))
    say(sentence(report.findings))
    say(f"The whole report: {settings.out}/report.html")
    if not stages and (hint := repair_hint(base, tuned[0], report.findings)):
        say(hint)
    if junit:
        write_junit(junit, report.gate)
    if markdown:
        write_markdown(markdown, report, sentence(report.findings), [summary_table(report)])
    for outcome in report.gate:
        if outcome.status is not OutcomeStatus.HELD:
            say(f"keeptune: {outcome.reason}")
    if reasons := broken(report, strict=settings.strict):
        if settings.strict:
            say(f"keeptune: failed: {'; '.join(reasons)}")
        sys.exit(_BOUND_BROKEN)
