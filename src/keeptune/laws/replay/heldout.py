"""How well the replay law foretells a λ and a pool that it has not seen, beside simpler laws."""

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

FORMS: Sequence[Form] = get_args(Form)
_REPLICATES = 10_000


class Comparison(TypedDict):
    """What each form is off on cells of λ × replay tokens left out whole, nats per token.

    Each cell weighs the same, however many runs and readings it has.
    """

    cells: list[dict[str, float]]
    """For each cell: `lambda`, `replay_tokens`, and for each form and loss the mean |said − read|, `replay.L_f` …"""
    mean: dict[str, dict[str, float]]
    """By form and loss: the mean over cells."""
    against: dict[str, tuple[float, float, float]]
    """By rival: its error in L_f less the law's, mean over cells with the ends of a 95 % bootstrap over cells: above 0
    the law is better."""


def leave_cells_out(runs: ReplayRuns, forms: Sequence[Form] = FORMS) -> Comparison:
    """Fit each form without each cell with a λ above 0, and hold it against that cell.

    The runs without replay are always fitted to, for the law says what replay takes off them.

    Raises:
        ConfigError: too few cells: without one of them the law cannot be fitted.
    """
    cells = [cell for cell in runs.cells if cell[0] > 0]
    if len(cells) < 3:
        raise ConfigError(f"{len(cells)} cells of λ and replay tokens leave none out", "add runs of another λ or pool")
    found = []
    with track("Leave one cell out", len(cells) * len(forms), "fits") as task:
        for weight, tokens in cells:
            out = np.equal(runs.lambda_, weight) & np.equal(runs.tokens, tokens)
            kept, left = runs.where(~out), runs.where(out)
            row = {"lambda": weight, "replay_tokens": tokens}
            for form in forms:
                said = (
                    ReplayFit(form=form, bootstraps=0)
                    .fit(kept)
                    .law_.predict(P=left.P, N=left.N, lambda_=left.lambda_, tokens=left.tokens)
                )
                row[f"{form}.L_ft"] = float(np.mean(np.abs(said.L_ft - left.L_ft)))
                row[f"{form}.L_f"] = float(np.mean(np.abs(said.L_f - left.L_f)))
                task.advance()
            found.append(row)
    mean: dict[str, dict[str, float]] = {
        form: {loss: float(np.mean([row[f"{form}.{loss}"] for row in found])) for loss in ("L_ft", "L_f")}
        for form in forms
    }
    against: dict[str, tuple[float, float, float]] = {
        rival: _difference(np.array([row[f"{rival}.L_f"] - row["replay.L_f"] for row in found]))
        for rival in forms
        if rival != "replay" and "replay" in forms
    }
    return Comparison(cells=found, mean=mean, against=against)


def _difference(values: Floats) -> tuple[float, float, float]:
    drawn = np.random.default_rng(0).choice(values, size=(_REPLICATES, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
