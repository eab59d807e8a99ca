"""`keeptune capacity`: can the model learn the task without moving its old predictions?"""

from dataclasses import dataclass, replace
from typing import Annotated

from cyclopts import Parameter

from keeptune.cli.arguments import Base, Hidden, Task
from keeptune.probes.capacity import CapacityPlan


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class _Flags(CapacityPlan):
    """CapacityPlan as flags; the model and the data come by position."""

    model: Annotated[str, Hidden] = ""
    data: Annotated[str, Hidden] = ""


def capacity(model: Base, data: Task, *, plan: _Flags | None = None) -> None:
    """Run the probe; see `keeptune.cli.help`."""
    from keeptune.probes.capacity import capacity_probe, print_capacity

    plan = replace(plan or _Flags(), model=model, data=data)
    print_capacity(capacity_probe(plan))
