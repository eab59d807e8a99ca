"""The figure of the frontier: the pilot's runs, the frontier with its interval, the budget and the plan."""

from __future__ import annotations

from typing import Any

import pytest

from keeptune.plan.picture import frontier_figure


def plan(chosen: dict[str, Any] | None) -> dict[str, Any]:
    readings = [{"N": N, "L_ft": 3.0 - 0.1 * N, "KL": 0.01 * N} for N in (0, 2, 4)]
    points = [{"KL": [kl, 0.8 * kl, 1.2 * kl], "task_loss": [2.8 - kl, 2.7 - kl, 2.9 - kl]} for kl in (0.01, 0.05)]
    return {
        "pilot": {"runs": [{"rank": 4, "lambda": 0.5, "learning_rate": 1e-3, "readings": readings}]},
        "frontier": points,
        "plan": chosen,
        "settings": {"budget": 0.02},
    }


def test_it_shows_runs_frontier_budget_and_plan() -> None:
    chosen = {"task_loss": [2.75, 2.7, 2.8], "KL": [0.018, 0.01, 0.03]}
    (panel,) = frontier_figure(plan(chosen)).axes
    run, frontier, budget = panel.lines[:3]
    assert list(run.get_xdata()) == [2.8, 2.6], "step 0 is the base"
    assert list(frontier.get_ydata()) == [0.01, 0.05]
    assert list(budget.get_ydata()) == [0.02, 0.02]
    assert "the plan" in panel.get_legend_handles_labels()[1]
    assert panel.xaxis_inverted()


@pytest.mark.parametrize("chosen", [None, {"task_loss": [None, 1.0, 2.0]}])
def test_without_a_plan_or_its_kl_no_point_is_drawn(chosen: dict[str, Any] | None) -> None:
    (panel,) = frontier_figure({**plan(chosen), "frontier": []}).axes
    assert "the plan" not in panel.get_legend_handles_labels()[1]
    assert len(panel.lines) == 2
