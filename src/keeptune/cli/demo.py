"""`keeptune demo`: the main job, end to end."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from keeptune.demo.plan import DemoPlan


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class _Flags(DemoPlan):
    """DemoPlan as flags."""


def demo(
    *,
    plan: _Flags | None = None,
    quick: Annotated[
        bool,
        Parameter(
            help="Train a base of half a million weights first, and use it in place of --model: under two minutes, no "
            "download. Takes --out (default demo-quick) and --seed only.",
            negative="",
        ),
    ] = False,
) -> None:
    """Run the demo; see `keeptune.cli.help`."""
    from keeptune.demo.quick import QuickPlan, quick_demo
    from keeptune.demo.run import demo as run
    from keeptune.workspace import alone

    plan = plan or _Flags()
    if quick:
        small = QuickPlan.of(plan)
        with alone(small.folder):
            quick_demo(small)
    else:
        with alone(plan.folder):
            run(plan)
