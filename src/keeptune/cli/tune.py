"""`keeptune tune`: fine-tune and keep."""

import os
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from keeptune.runs.settings import TuneSettings

Hidden = Parameter(parse=False)


@Parameter(name="*", negative_iterable="")
@dataclass(frozen=True, kw_only=True)
class _Flags(TuneSettings):
    """TuneSettings as flags; the model and the data come by position, [sft] from the run file."""

    model: Annotated[str, Hidden] = ""
    data: Annotated[str, Hidden] = ""
    sft: Annotated[dict[str, Any], Hidden] = field(default_factory=dict)


def tune(
    model: Annotated[str, Parameter(help="The base: a hub id, a folder, a .gguf file, or smollm2.")],
    data: Annotated[
        str,
        Parameter(help="The new task: a hub data set, a file, folder or glob of jsonl, parquet or text, or verilog."),
    ],
    *,
    settings: _Flags,
    config: Annotated[Path | None, Parameter(help="Run file (TOML): the flags as keys, and a table [sft].")] = None,
    resume: Annotated[bool, Parameter(help="Go on with the run in --out.", negative="")] = False,
    overwrite: Annotated[bool, Parameter(help="Replace the run that stands in --out.", negative="")] = False,
) -> None:
    """Run a fine-tuning; see `keeptune.cli.help`."""
    from keeptune.log import say
    from keeptune.runs.run import tune as run
    from keeptune.train.readings import FILE, read_rows

    sft = tomllib.loads(config.read_text(encoding="utf-8")).get("sft", {}) if config is not None else {}
    settings = replace(settings, model=model, data=data, sft=sft)
    folder = run(settings, resume=resume, overwrite=overwrite, with_advice=True)
    if os.environ.get("RANK", "0") != "0":
        return  # one of several processes says it
    rows = read_rows(Path(settings.out) / FILE)
    first, last = rows[0], rows[-1]
    say(f"{folder}: task loss {first['L_ft']:.3f} → {last['L_ft']:.3f}, drift KL {last['KL']:.4f} nats per token")
