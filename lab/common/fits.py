"""Rows of a csv as the readings that the laws of forgetting are fitted to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from common.grid import Row
from keeptune.laws.readings import ReplayRuns, Runs

WARMUP_SHARE = 0.1
"""Share of a run left out of fits: the rate warms up, and L_ft is still the base's. The paper leaves out a fifth."""


def late(rows: list[Row]) -> list[Row]:
    """The rows after the warm-up."""
    after = WARMUP_SHARE * max(row["N"] for row in rows)
    return [row for row in rows if row["N"] > after]


def readings(rows: list[Row], run: Callable[[Row], Any]) -> Runs:
    """Readings with P, N, L_ft and L_f; `run` names the run of a row."""
    return Runs(**_columns(rows, run))


def replay_readings(rows: list[Row]) -> ReplayRuns:
    """Readings with λ and the replay tokens too, of runs that have one L_f of the base."""
    base = float(rows[0]["L_f_base"])
    lambda_, tokens = (np.array([row[name] for row in rows], dtype=np.float64) for name in ("lambda", "replay_tokens"))
    return ReplayRuns(**_columns(rows, lambda row: row["run"]), lambda_=lambda_, tokens=tokens, L_f_base=base)


def _columns(rows: list[Row], run: Callable[[Row], Any]) -> dict[str, Any]:
    names = list(dict.fromkeys(run(row) for row in rows))
    columns = {name: np.array([row[name] for row in rows], dtype=np.float64) for name in ("P", "N", "L_ft", "L_f")}
    return {**columns, "run": np.array([names.index(run(row)) for row in rows])}
