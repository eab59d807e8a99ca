"""The report page of an audit: what `report.json` holds, for people."""

from __future__ import annotations

from typing import Any

from keeptune.audit.page.gate import gate_table, recovery_table
from keeptune.audit.page.harness import harness_table
from keeptune.audit.page.headline import headline_view
from keeptune.audit.page.methods import methods_view
from keeptune.audit.page.safety import safety_view
from keeptune.audit.page.shell import render
from keeptune.audit.page.tasks import tasks_view
from keeptune.audit.page.texts import texts_view
from keeptune.audit.page.where import where_view
from keeptune.stats import LEVEL


def audit_page(report: dict[str, Any]) -> str:
    """The page of an audit: one HTML file under 6 MB that needs no network.

    Args:
        report: as `keeptune.audit.run.audit` gives it. Its sections `tasks`, `lm_eval`, `safety`, `where`, `recovery`
            and `gate` may be missing or empty, and then the page has none. Nothing in it is trusted: all is escaped.

    Raises:
        KeyError: a part that every audit has is missing.
        jinja2.UndefinedError: a part of a section is missing.
    """
    return render(
        "audit.html",
        report=report,
        level=f"{LEVEL * 100:.0f}\u202f%",
        headline=headline_view(report),
        texts=texts_view(report),
        tasks=tasks_view(report) if report.get("tasks") else None,
        harness=harness_table(report["lm_eval"]) if report.get("lm_eval") else None,
        safety=safety_view(report) if report.get("safety") else None,
        where=where_view(report) if report.get("where") else None,
        recovery=recovery_table(report["recovery"]) if report.get("recovery") else None,
        gate=gate_table(report["gate"]) if report.get("gate") else None,
        methods=methods_view(report),
    )
