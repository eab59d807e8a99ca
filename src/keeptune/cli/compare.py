"""`keeptune compare`: audited models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def compare(
    *reports: Annotated[str, Parameter(help="[NAME=]REPORT: report.json of an audit, or its folder.")],
    learned: Annotated[
        str, Parameter(help="The text of the new task (change of loss), or a task (accuracy; TASK:chat).")
    ],
    forgot: Annotated[str, Parameter(help="TEXT[:MEASURE]: kl, l_f_rise, ce_change or agreement.")] = "self:kl",
    out: Annotated[Path, Parameter(help="Folder of compare.json and compare.html.")] = Path("compare"),
) -> None:
    """Compare audited models; see `keeptune.cli.help`."""
    from keeptune.audit.compare.page import pairs_table, points_table
    from keeptune.audit.compare.reports import compare as run
    from keeptune.log import say
    from keeptune.report.terminal import print_tables

    comparison = run(reports, learned=learned, forgot=forgot, out=out)
    print_tables(points_table(comparison), pairs_table(comparison))
    say(f"The picture: {out}/compare.html")
