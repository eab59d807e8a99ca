"""Arguments that several verbs take."""

from typing import Annotated

from cyclopts import Parameter

Base = Annotated[str, Parameter(help="The base model: a hub id, a folder, a .gguf file, or smollm2.")]
Task = Annotated[
    str,
    Parameter(
        help="The new task: a hub data set (org/name[:split]), a file, folder or glob, verilog, or pydoc. Files hold "
        "rows (jsonl, json, csv, tsv, parquet, arrow; also .gz, .bz2, .xz, .zst) or text, or are of save_to_disk."
    ),
]
Hidden = Parameter(parse=False)
"""Of a setting that is no flag."""

ESTIMATE = """Print what this would take on so many GPUs, 0 for this CPU: memory of each, disk and time. It follows
from the model's configuration; nothing is loaded or written."""
TFLOPS = "Dense matrix products of one GPU in TFLOP/s, for --estimate; by default measured on this machine."


def wants_estimate(gpus: int | None, tflops: float | None) -> bool:
    """Whether --estimate is given. Raises `ConfigError` for numbers that cannot be, or --tflops alone."""
    from keeptune.errors import ConfigError

    if (gpus is not None and gpus < 0) or (tflops is not None and not tflops > 0):
        raise ConfigError(f"--estimate is {gpus}, --tflops is {tflops}", "give a number of GPUs, and a rate above 0")
    if tflops is not None and gpus is None:
        raise ConfigError("--tflops is for --estimate", "add --estimate GPUS, or leave it out")
    return gpus is not None
