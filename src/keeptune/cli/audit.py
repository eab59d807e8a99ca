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
            help="[NAME:]MEASURE=NUMBER: exit with code 1 where kl, l_f_rise or ce_change is surely above the number, "
            "or agreement, accuracy or refusals fell by surely more (agreement=-0.03). Repeat it for more bounds.",
            negative="",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    junit: Annotated[Path | None, Parameter(help="File for the bounds as JUnit XML; needs --fail-above.")] = None,
    markdown: Annotated[Path | None, Parameter(help="File for the tables as Markdown.")] = None,
) -> None:
    """Audit a tuned model; see `keeptune.cli.help`."""
    from keeptune.audit.gate import BROKEN, HELD, parse_bounds
    from keeptune.audit.run import audit as run
    from keeptune.audit.stages.run import audit_stages
    from keeptune.audit.summary import write_junit, write_markdown
    from keeptune.audit.terminal import print_report, print_stages
    from keeptune.errors import ConfigError
    from keeptune.log import say
    from keeptune.probes.recovery import recovery_probe

    if junit and not fail_above:
        raise ConfigError("--junit needs at least one --fail-above bound", "add --fail-above kl=0.02")
    settings = replace(settings or _Flags(), base=base, tuned=tuned)
    if stages:
        if fail_above or markdown:
            raise ConfigError("--stages gives no verdict to bound or to tabulate", "audit the last checkpoint alone")
        print_stages(audit_stages(settings))
        say(f"The whole report: {settings.out}/report.html")
        return
    if len(tuned) > 1:
        raise ConfigError(
            f"{len(tuned)} tuned models are named",
            "add --stages if each was tuned from the one before; else audit one at a time, then keeptune compare",
        )
    report = run(settings, parse_bounds(fail_above, settings.named()), recovery_probe)
    print_report(report)
    say(f"The whole report: {settings.out}/report.html")
    for file, write in ((junit, write_junit), (markdown, write_markdown)):
        if file:
            write(file, report)
    for outcome in report["gate"]:
        if outcome["status"] != HELD:
            say(f"keeptune: {outcome['reason']}")
    if BROKEN in (outcome["status"] for outcome in report["gate"]):
        sys.exit(_BOUND_BROKEN)
