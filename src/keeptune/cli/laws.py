"""`keeptune laws`: fit, predict, plot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from keeptune.errors import ConfigError
from keeptune.log import say

_Runs = Annotated[Path, Parameter(help="RUNS: folders of keeptune tune, their runs.jsonl, or csv files.")]
_LEAST_BOOTSTRAPS = 20
_After = Annotated[int, Parameter(help="Leave out readings up to this step (the paper: 50 of 260).")]


def fit(
    *runs: _Runs,
    out: Annotated[Path, Parameter(help="What predict reads.")] = Path("laws.json"),
    after: _After = 0,
    bootstraps: Annotated[int, Parameter(help="Replicates for the intervals; 0 for none.")] = 200,
    seed: Annotated[int, Parameter(help="Of the replicates.")] = 0,
) -> None:
    """Fit the laws; see `keeptune.cli.help`."""
    from keeptune.laws.describe import print_laws
    from keeptune.laws.joint.document import Laws
    from keeptune.laws.joint.record import fit_laws, write_laws
    from keeptune.laws.readings import ReplayRuns, read_any_runs
    from keeptune.laws.replay.record import ReplayLaws, fit_replay_law

    # The far replicates of fewer are no ends of 90 %.
    if 0 < bootstraps < _LEAST_BOOTSTRAPS:
        raise ConfigError(
            f"{bootstraps} replicates are too few for intervals", f"give {_LEAST_BOOTSTRAPS} or more, or 0 for none"
        )
    readings = read_any_runs(runs, after=after)
    if isinstance(readings, ReplayRuns):
        laws: Laws | ReplayLaws = fit_replay_law(readings, bootstraps=bootstraps, seed=seed)
        where = "--P … --N … --lambda …"
    else:
        laws = fit_laws(readings, bootstraps=bootstraps, seed=seed)
        where = "--L-ft …" if isinstance(laws["joint"], str) else "--P … --N …"
    write_laws(out, laws)
    print_laws(laws)
    say(f"Predict with: keeptune laws predict {out} {where}")


def predict(
    laws: Annotated[str, Parameter(help="A laws.json, or a law from the paper.")],
    *,
    P: Annotated[float | None, Parameter(name="--P", help="Tuned parameters.")] = None,
    N: Annotated[float | None, Parameter(name="--N", help="Update steps.")] = None,
    L_ft: Annotated[float | None, Parameter(name="--L-ft", help="Task loss, nats per token: by the line.")] = None,
    lambda_: Annotated[float | None, Parameter(name="--lambda", help="Weight of the replay term; 0 for none.")] = None,
    replay_tokens: Annotated[
        float | None, Parameter(help="Distinct replay tokens; by default none is used twice.")
    ] = None,
    interval: Annotated[float, Parameter(help="What share of the truth the intervals cover.")] = 0.9,
) -> None:
    """Predict; see `keeptune.cli.help`."""
    from keeptune.laws.describe import print_bands
    from keeptune.laws.joint.record import beyond, predict_losses, predict_on_line
    from keeptune.laws.replay.record import predict_with_replay

    if L_ft is not None and P is None and N is None and lambda_ is None and replay_tokens is None:
        print_bands({"L_f": predict_on_line(laws, L_ft=L_ft, interval=interval)}, interval)
    elif L_ft is not None or P is None or N is None:
        raise ConfigError("a prediction needs --P and --N, or --L-ft alone", "give tuned parameters and update steps")
    elif lambda_ is not None:
        said = predict_with_replay(laws, P=P, N=N, lambda_=lambda_, tokens=replay_tokens, interval=interval)
        print_bands(said._asdict(), interval)
    elif replay_tokens is not None:
        raise ConfigError(
            "--replay-tokens says nothing without --lambda", "give --lambda, the weight of the replay term"
        )
    else:
        print_bands(predict_losses(laws, P=P, N=N, interval=interval)._asdict(), interval)
    if P is not None and N is not None and (warning := beyond(laws, P=P, N=N)):
        say(warning)


def plot(
    *runs: _Runs,
    out: Annotated[Path, Parameter(help="The page (.html) or picture (.svg, .png).")] = Path("laws.html"),
    style: Annotated[
        Literal["laws", "frontier"],
        Parameter(help="Of a picture: the fitted laws, or each run's way through both losses."),
    ] = "laws",
    after: _After = 0,
) -> None:
    """Draw the laws; see `keeptune.cli.help`."""
    from keeptune.laws.figures import drawing, run_ends
    from keeptune.laws.readings import ReplayRuns, read_any_runs, read_runs
    from keeptune.plot_style import check_suffix, save
    from keeptune.storage import write_text

    check_suffix(out, (".html",))
    if out.suffix == ".html" and style == "frontier":
        raise ConfigError("a page has no style frontier", "give --out a name that ends in .svg or .png")
    if out.suffix == ".html":
        from keeptune.laws.page import render_laws

        write_text(out, render_laws(drawing(read_runs(runs, after=after))))
    else:
        from keeptune.laws.figures import frontier_figure, laws_figure, replay_frontier_figure

        if style == "laws":
            figure = laws_figure(drawing(read_runs(runs, after=after)))
        elif isinstance(readings := read_any_runs(runs, after=after), ReplayRuns):
            figure = replay_frontier_figure(run_ends(readings))
        else:
            figure = frontier_figure(drawing(readings))
        save(figure, out)
    say(f"The picture: {out}")
