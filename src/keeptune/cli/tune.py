"""`keeptune tune`: fine-tune and keep."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from keeptune.cli.arguments import ESTIMATE, TFLOPS, Base, Hidden, Task, wants_estimate
from keeptune.runs.settings import TuneSettings


@Parameter(name="*", negative_iterable="")
@dataclass(frozen=True, kw_only=True)
class _Flags(TuneSettings):
    """TuneSettings as flags; the model and the data come by position, [sft] from the run file."""

    model: Annotated[str, Hidden] = ""
    data: Annotated[str, Hidden] = ""
    sft: Annotated[Mapping[str, object], Hidden] = field(default_factory=dict)


def tune(
    model: Base,
    data: Task,
    *,
    settings: _Flags,
    config: Annotated[Path | None, Parameter(help="Run file (TOML): the flags as keys, and a table [sft].")] = None,
    resume: Annotated[bool, Parameter(help="Go on with the run in --out.", negative="")] = False,
    overwrite: Annotated[bool, Parameter(help="Replace the run that stands in --out.", negative="")] = False,
    estimate: Annotated[int | None, Parameter(help=ESTIMATE)] = None,
    tflops: Annotated[float | None, Parameter(help=TFLOPS)] = None,
) -> None:
    """Run a fine-tuning; see `keeptune.cli.help`."""
    from keeptune.log import say
    from keeptune.runs.run import tune as run
    from keeptune.train.readings import FILE, read_rows
    from keeptune.workspace import alone

    sft = tomllib.loads(config.read_text(encoding="utf-8")).get("sft", {}) if config is not None else {}
    settings = replace(settings, model=model, data=data, sft=sft)
    if wants_estimate(estimate, tflops):
        from keeptune.cli.estimate import of_tuning

        return of_tuning(settings, estimate or 0, tflops)
    with alone(Path(settings.out)):
        folder = run(settings, resume=resume, overwrite=overwrite, with_advice=True)
    if os.environ.get("RANK", "0") != "0":
        return None  # one of several processes says it
    rows = read_rows(Path(settings.out) / FILE)
    first, last = rows[0], rows[-1]
    say(f"{folder}: task loss {first['L_ft']:.3f} → {last['L_ft']:.3f}, drift KL {last['KL']:.4f} nats per token")
    return None
