"""keeptune's command line with FSDP2 on CPUs, for the tests.

accelerate takes up FSDP only where a process has an accelerator. Here its one check of that is told that it has; all
else, from sharding over gloo to gathering for the saved model, is what accelerate and the Trainer do on GPUs.
"""

from __future__ import annotations

from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

from keeptune.cli import main

real_init = AcceleratorState.__init__


def init(self: AcceleratorState, *arguments: Any, **settings: Any) -> None:
    PartialState(cpu=True)
    if PartialState().distributed_type == DistributedType.MULTI_CPU:
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    real_init(self, *arguments, **settings)


AcceleratorState.__init__ = init
main()
