"""Arguments that several verbs take."""

from typing import Annotated

from cyclopts import Parameter

Base = Annotated[str, Parameter(help="The base model: a hub id, a folder, a .gguf file, or smollm2.")]
Task = Annotated[
    str, Parameter(help="The new task: a hub data set, a file, folder or glob of jsonl, parquet or text, or verilog.")
]
Hidden = Parameter(parse=False)
"""Of a setting that is no flag."""
