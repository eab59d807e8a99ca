"""`keeptune repair`: give a tuned model back what it forgot."""

import sys
from dataclasses import dataclass, replace
from typing import Annotated

from cyclopts import Parameter

from keeptune.cli.arguments import Base, Hidden
from keeptune.repair.settings import RepairSettings

_BOUND_BROKEN = 1


@Parameter(name="*", negative="")
@dataclass(frozen=True, kw_only=True)
class _Flags(RepairSettings):
    """RepairSettings as flags; the models come by position."""

    base: Annotated[str, Hidden] = ""
    tuned: Annotated[str, Hidden] = " "


def repair(
    base: Base,
    tuned: Annotated[str, Parameter(help="The tuned model, or an adapter on the base.")],
    *,
    settings: _Flags | None = None,
) -> None:
    """Repair a tuned model; see `keeptune.cli.help`."""
    from keeptune.log import say
    from keeptune.repair.outcome import Answer
    from keeptune.repair.run import PAGE
    from keeptune.repair.run import repair as run
    from keeptune.repair.words import next_command, sentence, table
    from keeptune.report.terminal import print_tables
    from keeptune.workspace import alone

    settings = replace(settings or _Flags(), base=base, tuned=tuned)
    with alone(settings.folder):
        result = run(settings)
    print_tables(table(result), sentence(result))
    if result["chosen"] is not None:
        say(f"Saved to {settings.out}/model: {result['chosen']['saved']}")
        say(f"Measure it on other text: {next_command(result)}")
    say(f"The frontier: {settings.out}/{PAGE}")
    if result["answer"] is Answer.NOT_REACHABLE:
        sys.exit(_BOUND_BROKEN)
