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
    task: Annotated[
        list[str],
        Parameter(help="NAME=FILE.jsonl: questions to answer, as ARC, MMLU and others publish them.", negative=""),
    ] = [],  # noqa: B006
    items: Annotated[int, Parameter(help="At most so many questions of each task, evenly spaced.")] = 200,
    docs: Annotated[int, Parameter(help="At most so many documents of each text, evenly spaced.")] = 64,
    max_length: Annotated[int, Parameter(help="Tokens in a window of text.")] = 256,
    windows: Annotated[int, Parameter(help="At most so many windows of each document.")] = 4,
    seed: Annotated[int, Parameter(help="Of the fresh text.")] = 1,
    out: Annotated[Path, Parameter(help="Folder for report.json.")] = Path("audit"),
) -> None:
    """Audit a tuned model; see `keeptune.cli.help`."""
    from keeptune.audit.run import audit as run
    from keeptune.audit.run import print_table
    from keeptune.audit.tasks import print_tasks

    report = run(
        base,
        tuned,
        text,
        out=out,
        docs=docs,
        max_length=max_length,
        windows=windows,
        seed=seed,
        tasks=task,
        items=items,
    )
    print_table(report)
    print_tasks(report)
