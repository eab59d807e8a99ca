"""`keeptune plan`: which run to make."""

from dataclasses import dataclass, replace
from typing import Annotated

from cyclopts import Parameter

from keeptune.cli.arguments import Base, Hidden, Task
from keeptune.plan.settings import PlanSettings


@Parameter(name="*", negative="")
@dataclass(frozen=True, kw_only=True)
class _Flags(PlanSettings):
    """PlanSettings as flags; the model and the data come by position."""

    model: Annotated[str, Hidden] = ""
    data: Annotated[str, Hidden] = ""


def plan(model: Base, data: Task, *, settings: _Flags) -> None:
    """Plan a fine-tuning; see `keeptune.cli.help`."""
    from keeptune.log import say
    from keeptune.plan.report import print_plan
    from keeptune.plan.run import plan as run
    from keeptune.workspace import alone

    settings = replace(settings, model=model, data=data)
    with alone(settings.folder):
        result = run(settings)
    print_plan(result)
    say(f"All of it: {settings.out}/plan.json; the pilot as a figure: {settings.out}/pilot.svg")
