"""Figure, table and claims of how many replay rows a step, and with what weight."""

from __future__ import annotations

from typing import Any

from common.drawing import absent, log_places, logarithmic, note, panels, whiskers
from common.grid import Row
from common.small.curves import (
    Run,
    by_seed,
    differences,
    mean_at,
    paired,
    runs,
    training_seconds,
    values,
    whole_seconds,
)
from common.stats import Claim, Interval, claim_over_seeds, measured
from common.tables import format_count, format_interval, markdown
from keeptune.plot_style import COLOURS, MARKS

STRONG = 10.0


def figure(rows: list[Row]) -> Any:
    """Left, forgetting by replay rows a step; right, forgetting against processor seconds; both at the target."""
    counts, weights = values(rows, "replay_rows"), values(rows, "lambda_")
    drawn, (left, right) = panels(3.2, sharey=True, width_ratios=(1, 1.25))
    for lambda_, colour, mark in zip(weights, COLOURS, MARKS, strict=False):
        look: dict[str, Any] = {"color": colour, "marker": mark, "label": f"λ = {lambda_:g}"}
        places = []
        for count in counts:
            forgotten, seconds = at(rows, count, lambda_), at(rows, count, lambda_, whole_seconds)
            if forgotten is not None and seconds is not None:
                places.append((seconds.value, forgotten))
                note(right, seconds.value, forgotten.value, str(count), color=colour)
        whiskers(left, [(count, at(rows, count, lambda_)) for count in counts], **look)
        whiskers(right, places, **look)
        for count in counts:
            if at(rows, count, lambda_) is None:
                absent(left, count, f"λ = {lambda_:g}: not reached", rotation=90, color=colour)
    log_places(left, counts)
    logarithmic(left, "y")
    left.set_xlabel(f"replay rows a step, beside {rows[0]['batch']} task rows")
    left.set_ylabel("forgetting: rise of the old loss,\nnats per token, mean and 95 % interval")
    left.set_title(f"where the new loss is {rows[0]['target']:g}")
    left.legend(loc="lower right", bbox_to_anchor=(1, 0.35))
    right.margins(x=0.1)
    logarithmic(right, "x")
    right.set_xlabel("processor seconds to get there, sampling counted in")
    right.set_title("what it costs; numbers are replay rows a step")
    return drawn


def group(rows: list[Row], count: int, lambda_: float) -> list[Run]:
    """The runs of one setting."""
    return runs(rows, replay_rows=count, lambda_=lambda_)


def at(rows: list[Row], count: int, lambda_: float, *of: Any) -> Interval | None:
    """Forgetting, or another function of a row, at the target."""
    return mean_at(group(rows, count, lambda_), rows[0]["target"], *of)


def frontier(rows: list[Row]) -> list[tuple[int, float]]:
    """Settings (rows and λ) that no other beats in both forgetting and seconds, by the means; the quickest first."""
    found = []
    for count in values(rows, "replay_rows"):
        for lambda_ in values(rows, "lambda_"):
            forgotten, seconds = at(rows, count, lambda_), at(rows, count, lambda_, whole_seconds)
            if forgotten is not None and seconds is not None:
                found.append((seconds.value, forgotten.value, (count, lambda_)))
    best, least = [], float("inf")
    for _, forgotten_nats, setting in sorted(found):
        if forgotten_nats < least:
            best.append(setting)
            least = forgotten_nats
    return best


def table(rows: list[Row]) -> str:
    """Each setting at the target loss."""
    best, lines = frontier(rows), []
    for lambda_ in values(rows, "lambda_"):
        for count in values(rows, "replay_rows"):
            cells = [f"{lambda_:g}", str(count), format_interval(at(rows, count, lambda_))]
            cells.append(format_count(at(rows, count, lambda_, lambda row: row["step"])))
            cells += [format_interval(at(rows, count, lambda_, of), 1) for of in (training_seconds, whole_seconds)]
            lines.append([*cells, "yes" if (count, lambda_) in best else ""])
    head = ["λ", "replay rows a step", f"forgetting at a new loss of {rows[0]['target']:g}", "steps"]
    body = markdown([*head, "seconds, training", "seconds, with sampling", "a best buy"], lines)
    return f"{body}\n\nA best buy: no other setting is both quicker, sampling counted in, and forgets less."


def claims(rows: list[Row]) -> list[Claim]:
    """Our own findings; differences and ratios are taken within a seed."""
    target = rows[0]["target"]

    def forgotten(count: int, lambda_: float) -> dict[int, float]:
        return by_seed(group(rows, count, lambda_), target)

    sixteen, four = (by_seed(group(rows, count, STRONG), target, whole_seconds) for count in (16, 4))
    return measured(
        claim_over_seeds(
            "one replay row a step keeps less than sixteen",
            "forgetting, 1 row minus 16 rows, λ = 10, nats",
            differences(forgotten(1, STRONG), forgotten(16, STRONG)),
            above=0.0,
        ),
        claim_over_seeds(
            "four times as many replay rows as task rows add little",
            "forgetting, 16 rows minus 64 rows, λ = 10, nats",
            differences(forgotten(16, STRONG), forgotten(64, STRONG)),
            below=0.02,
        ),
        claim_over_seeds(
            "a weight ten times as large keeps more than sixteen times the rows",
            "forgetting, 64 rows at λ = 1 minus 4 rows at λ = 10, nats",
            differences(forgotten(64, 1.0), forgotten(4, STRONG)),
            above=0.0,
        ),
        claim_over_seeds(
            "a quarter as many replay rows as task rows is quicker than as many",
            "processor seconds, sampling counted in, 16 rows / 4 rows, λ = 10",
            paired(sixteen, four, lambda many, few: float(many / few)),
            above=1.0,
        ),
    )
