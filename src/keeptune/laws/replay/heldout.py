"""Errors of the replay law and simpler laws on a held-out λ and pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict, get_args

import numpy as np

from keeptune.errors import ConfigError
from keeptune.laws.forms import Floats
from keeptune.laws.readings import ReplayRuns
from keeptune.laws.replay.fit import ReplayFit
from keeptune.laws.replay.model import Form
from keeptune.log import track
from keeptune.stats import bootstrap

FORMS: Sequence[Form] = get_args(Form)
_RESAMPLES = 10_000


class Comparison(TypedDict):
    """Errors of each form on held-out cells of λ × replay tokens, nats per token.

    All cells have the same weight, whatever their number of runs and readings.
    """

    cells: list[dict[str, float]]
    """For each cell: `lambda`, `replay_tokens`, and the mean absolute error by form and loss, such as `replay.L_f`."""
    mean: dict[str, dict[str, float]]
    """By form and loss: the mean over cells."""
    against: dict[str, tuple[float, float, float]]
    """By rival: its error in L_f minus the law's, the mean over cells with the ends of a 95 % bootstrap over cells.
    Above 0 the law is better."""


def leave_cells_out(runs: ReplayRuns, forms: Sequence[Form] = FORMS) -> Comparison:
    """Fit each form without each cell with λ above 0, and compare it with that cell.

    The runs without replay are always fitted, because the law describes replay relative to them.

    Raises:
        ConfigError: too few cells to leave one out.
    """
    cells = [cell for cell in runs.cells if cell[0] > 0]
    if len(cells) < 3:
        raise ConfigError(
            f"{len(cells)} cells of λ and replay tokens are too few to leave one out", "add runs with another λ or pool"
        )
    rows = []
    with track("Leave one cell out", len(cells) * len(forms), "fits") as task:
        for weight, tokens in cells:
            out = np.equal(runs.lambda_, weight) & np.equal(runs.tokens, tokens)
            kept, left = runs.where(~out), runs.where(out)
            row = {"lambda": weight, "replay_tokens": tokens}
            for form in forms:
                law = ReplayFit(form=form, bootstraps=0).fit(kept).law_
                predicted = law.predict(P=left.P, N=left.N, lambda_=left.lambda_, tokens=left.tokens)
                row[f"{form}.L_ft"] = float(np.mean(np.abs(predicted.L_ft - left.L_ft)))
                row[f"{form}.L_f"] = float(np.mean(np.abs(predicted.L_f - left.L_f)))
                task.advance()
            rows.append(row)
    mean: dict[str, dict[str, float]] = {
        form: {loss: float(np.mean([row[f"{form}.{loss}"] for row in rows])) for loss in ("L_ft", "L_f")}
        for form in forms
    }
    against: dict[str, tuple[float, float, float]] = {
        rival: _difference(np.array([row[f"{rival}.L_f"] - row["replay.L_f"] for row in rows]))
        for rival in forms
        if rival != "replay" and "replay" in forms
    }
    return Comparison(cells=rows, mean=mean, against=against)


def _difference(values: Floats) -> tuple[float, float, float]:
    mean = bootstrap(lambda drawn: values[drawn].mean(), len(values), resamples=_RESAMPLES)
    value, low, high = mean.ends().values()
    return value, low, high
