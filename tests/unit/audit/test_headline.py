"""Where an audit points to a repair: only where the base's own text surely drifted."""

from __future__ import annotations

import shlex

import pytest

from keeptune.audit.headline import repair_hint
from tests.helpers.audit_report import text_findings


@pytest.mark.parametrize(
    ("name", "kl", "documents", "said"),
    [("self", 0.113, 16, True), ("self", 0.0001, 16, False), ("self", 0.113, 3, False), ("mine", 0.113, 16, False)],
)
def test_a_repair_is_named_where_the_base_s_own_text_drifted(name: str, kl: float, documents: int, said: bool) -> None:
    hint = repair_hint("org/base", "my run/model", text_findings(name, kl, n=documents))
    assert bool(hint) is said
    if said:
        command = shlex.split(hint.partition(": ")[2])
        assert command == ["keeptune", "repair", "org/base", "my run/model", "--budget", "0.03"]
