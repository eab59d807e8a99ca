"""Arguments that several verbs take."""

from typing import Annotated

from cyclopts import Parameter

Base = Annotated[str, Parameter(help="The base model: a hub id, a folder, a .gguf file, or smollm2.")]
Task = Annotated[
    str,
    Parameter(
        help="The new task: a hub data set (org/name[:split]), a file, folder or glob of rows (jsonl, json, csv, tsv, "
        "parquet, arrow; also .gz, .bz2, .xz, .zst) or of text, a folder of save_to_disk, or verilog, or pydoc."
    ),
]
Hidden = Parameter(parse=False)
"""Of a setting that is no flag."""
