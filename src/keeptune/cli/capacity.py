"""`keeptune capacity`: can the model learn the task without moving its old predictions?"""

from dataclasses import dataclass, replace
from typing import Annotated

from cyclopts import Parameter

from keeptune.probes.capacity import CapacityPlan

Hidden = Parameter(parse=False)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class _Flags(CapacityPlan):
    """CapacityPlan as flags; the model and the data come by position."""

    model: Annotated[str, Hidden] = ""
    data: Annotated[str, Hidden] = ""


def capacity(
    model: Annotated[str, Parameter(help="The base: a hub id, a folder, a .gguf file, or smollm2.")],
    data: Annotated[
        str,
        Parameter(help="The new task: a hub data set, a file, folder or glob of jsonl, parquet or text, or verilog."),
    ],
    *,
    plan: _Flags | None = None,
) -> None:
    """Run the probe; see `keeptune.cli.help`."""
    from keeptune.probes.capacity import capacity_probe
    from keeptune.probes.describe import print_capacity

    plan = replace(plan or _Flags(), model=model, data=data)
    print_capacity(capacity_probe(plan))
