"""`keeptune audit`: how far a tuned model drifted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def audit(
    base: Annotated[str, Parameter(help="The base model: a hub id, a folder, a .gguf file, or smollm2.")],
    tuned: Annotated[str, Parameter(help="The tuned model, or an adapter on the base.")],
    *,
    text: Annotated[
        list[str],
        Parameter(
            help="NAME=SOURCE or an alias: a text to measure on; self is fresh text of the base's own.", negative=""
        ),
    ] = ["self"],  # noqa: B006
    docs: Annotated[int, Parameter(help="At most so many documents of each text, evenly spaced.")] = 64,
    max_length: Annotated[int, Parameter(help="Tokens in a window of text.")] = 256,
    windows: Annotated[int, Parameter(help="At most so many windows of each document.")] = 4,
    seed: Annotated[int, Parameter(help="Of the fresh text.")] = 1,
    out: Annotated[Path, Parameter(help="Folder for report.json.")] = Path("audit"),
) -> None:
    """Audit a tuned model; see `keeptune.cli.help`."""
    from keeptune.audit.run import audit as run
    from keeptune.audit.run import print_table

    report = run(base, tuned, text, out=out, docs=docs, max_length=max_length, windows=windows, seed=seed)
    print_table(report)
