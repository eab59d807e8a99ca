"""`keeptune plan`: which run to make."""

from dataclasses import dataclass, replace
from typing import Annotated

from cyclopts import Parameter

from keeptune.plan.settings import PlanSettings

Hidden = Parameter(parse=False)


@Parameter(name="*", negative="")
@dataclass(frozen=True, kw_only=True)
class _Flags(PlanSettings):
    """PlanSettings as flags; the model and the data come by position."""

    model: Annotated[str, Hidden] = ""
    data: Annotated[str, Hidden] = ""


def plan(
    model: Annotated[str, Parameter(help="The base: a hub id, a folder, a .gguf file, or smollm2.")],
    data: Annotated[
        str,
        Parameter(help="The new task: a hub data set, a file, folder or glob of jsonl, parquet or text, or verilog."),
    ],
    *,
    settings: _Flags,
) -> None:
    """Plan a fine-tuning; see `keeptune.cli.help`."""
    from keeptune.log import say
    from keeptune.plan.report import print_plan
    from keeptune.plan.run import plan as run

    settings = replace(settings, model=model, data=data)
    print_plan(run(settings))
    say(f"All of it: {settings.out}/plan.json; the frontier: {settings.out}/frontier.svg")
