"""`keeptune audit`: how far a tuned model drifted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

_BOUND_BROKEN = 1


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
    fail_above: Annotated[
        list[str],
        Parameter(
            help="[TEXT:]MEASURE=NUMBER: exit with code 1 where kl, l_f_rise or ce_change is surely above the number, "
            "or agreement changed from 1 by surely more (agreement=-0.03: below 0.97). Repeat it for more bounds.",
            negative="",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    junit: Annotated[Path | None, Parameter(help="File for the bounds as JUnit XML; needs --fail-above.")] = None,
    markdown: Annotated[Path | None, Parameter(help="File for the table as Markdown.")] = None,
) -> None:
    """Audit a tuned model; see `keeptune.cli.help`."""
    from keeptune.audit.gate import BROKEN, HELD, parse_bounds
    from keeptune.audit.run import audit as run
    from keeptune.audit.run import named_sources, print_table
    from keeptune.audit.summary import write_junit, write_markdown
    from keeptune.audit.tasks import print_tasks
    from keeptune.errors import ConfigError
    from keeptune.progress import say

    if junit and not fail_above:
        raise ConfigError("--junit writes a testcase for each bound, and there is none", "add --fail-above kl=0.02")
    bounds = parse_bounds(fail_above, named_sources(text))
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
        bounds=bounds,
    )
    print_table(report)
    print_tasks(report)
    if junit:
        write_junit(junit, report)
    if markdown:
        write_markdown(markdown, report)
    for outcome in report["gate"]:
        if outcome["status"] != HELD:
            say(f"keeptune: {outcome['reason']}")
    if any(outcome["status"] == BROKEN for outcome in report["gate"]):
        sys.exit(_BOUND_BROKEN)
