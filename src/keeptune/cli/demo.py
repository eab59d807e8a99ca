"""`keeptune demo`: the main job, end to end."""

from dataclasses import dataclass

from cyclopts import Parameter

from keeptune.demo.plan import DemoPlan


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class _Flags(DemoPlan):
    """DemoPlan as flags."""


def demo(*, plan: _Flags | None = None) -> None:
    """Run the demo; see `keeptune.cli.help`."""
    from keeptune.demo.run import demo as run

    run(plan or _Flags())
