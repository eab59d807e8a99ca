"""`keeptune laws`: fit, predict, plot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

_Runs = Annotated[Path, Parameter(help="RUNS: folders of keeptune tune, their runs.jsonl, or csv files.")]
_After = Annotated[int, Parameter(help="Leave out readings up to this step (the paper: 50 of 260).")]


def fit(
    *runs: _Runs,
    out: Annotated[Path, Parameter(help="What predict reads.")] = Path("laws.json"),
    after: _After = 0,
    bootstraps: Annotated[int, Parameter(help="Replicates for the intervals; 0 for none.")] = 200,
    seed: Annotated[int, Parameter(help="Of the replicates.")] = 0,
) -> None:
    """Fit the laws; see `keeptune.cli.help`."""
    from keeptune.laws.record import fit_laws, write_laws
    from keeptune.laws.rows import read_runs
    from keeptune.laws.words import print_laws
    from keeptune.progress import say

    laws = fit_laws(read_runs(runs, after=after), bootstraps=bootstraps, seed=seed)
    write_laws(out, laws)
    print_laws(laws)
    say(f"Predict with: keeptune laws predict {out} --P … --N …")


def predict(
    laws: Annotated[str, Parameter(help="A laws.json, or a law from the paper.")],
    *,
    P: Annotated[float | None, Parameter(name="--P", help="Tuned parameters.")] = None,
    N: Annotated[float | None, Parameter(name="--N", help="Update steps.")] = None,
    L_ft: Annotated[float | None, Parameter(name="--L-ft", help="Task loss, nats per token: by the line.")] = None,
    interval: Annotated[float, Parameter(help="What share of the truth the intervals cover.")] = 0.9,
) -> None:
    """Predict; see `keeptune.cli.help`."""
    from keeptune.errors import ConfigError
    from keeptune.laws.record import predict_losses, predict_on_line
    from keeptune.laws.words import print_bands

    if L_ft is not None and P is None and N is None:
        print_bands({"L_f": predict_on_line(laws, L_ft=L_ft, interval=interval)}, interval)
    elif L_ft is None and P is not None and N is not None:
        print_bands(predict_losses(laws, P=P, N=N, interval=interval)._asdict(), interval)
    else:
        raise ConfigError("a prediction needs --P and --N, or --L-ft alone", "give tuned parameters and update steps")


def plot(
    *runs: _Runs,
    out: Annotated[Path, Parameter(help="The page.")] = Path("laws.html"),
    after: _After = 0,
) -> None:
    """Draw the laws; see `keeptune.cli.help`."""
    from keeptune.audit.page.laws import render_laws
    from keeptune.laws.figures import drawing
    from keeptune.laws.rows import read_runs
    from keeptune.progress import say
    from keeptune.storage import write_text

    write_text(out, render_laws(drawing(read_runs(runs, after=after))))
    say(f"The picture: {out}")
