"""Figure, table and claims of how much distinct replay text is enough."""

from __future__ import annotations

from typing import Any

from common.drawing import log_places, logarithmic, panels, whiskers
from common.grid import Row
from common.small.curves import Run, by_seed, differences, mean_at, runs, values
from common.stats import Claim, Interval, claim_over_seeds, measured, over_seeds
from common.tables import format_count, format_interval, markdown
from keeptune.plot_style import BLUE, GREY, ORANGE

NAMES = {"kl_self": "KL", "ntp_self": "next-token loss"}


def pools(rows: list[Row], method: str) -> list[int]:
    """Rows of the pools that a method replayed, in ascending order; the last is the fresh one."""
    return values(rows, "pool_rows", method=method)


def group(rows: list[Row], method: str, pool_rows: int) -> list[Run]:
    """The runs of one setting."""
    return runs(rows, method=method, pool_rows=pool_rows)


def tokens(rows: list[Row], pool_rows: int) -> int:
    """Distinct tokens that are trained on: one row of a pool is kept out."""
    return (pool_rows - 1) * int(rows[0]["length"])


def uses(row: Row) -> float:
    """How often each row of the pool has been replayed."""
    return float(row["step"] * row["replay_rows"] / (row["pool_rows"] - 1))


def figure(rows: list[Row]) -> Any:
    """Left, forgetting by the size of the pool; right, what reuse adds over fresh text by how often a row is used."""
    target = rows[0]["target"]
    drawn, (left, right) = panels(3.2)
    plain = mean_at(runs(rows, method="standard"), target)
    for method, colour, mark in (("kl_self", BLUE, "^"), ("ntp_self", ORANGE, "s")):
        *reused, fresh = pools(rows, method)
        look = {"color": colour, "marker": mark}
        points = [(tokens(rows, size), mean_at(group(rows, method, size), target)) for size in reused]
        whiskers(left, points, label=NAMES[method], **look)
        edge = [(4 * tokens(rows, reused[-1]), mean_at(group(rows, method, fresh), target))]
        whiskers(left, edge, fillstyle="none", linestyle="none", **look)
        often = [(mean_at(group(rows, method, size), target, uses), size) for size in reused]
        points = [(mean.value, over(back(rows, method, size))) for mean, size in often if mean is not None]
        whiskers(right, points, label=NAMES[method], **look)
    sizes = [tokens(rows, size) for size in pools(rows, "kl_self")[:-1]]
    log_places(left, [*sizes, 4 * sizes[-1]], [*(f"{size:,}" for size in sizes), "fresh,\nused once"])
    logarithmic(left, "y")
    if plain is not None:
        left.axhline(plain.value, color=GREY, linewidth=0.9, linestyle="--", label="no replay")
    left.set_xlabel("distinct replay tokens")
    left.set_ylabel("forgetting: rise of the old loss,\nnats per token, mean and 95 % interval")
    left.set_title(f"where the new loss is {target:g}")
    left.legend()
    right.axhline(0, color=GREY, linewidth=0.8)
    logarithmic(right, "x")
    right.set_xlabel("times that each replay row has been used")
    right.set_ylabel("forgetting above that with fresh text,\nas a share of that without replay")
    right.set_title("what reuse brings back")
    right.legend(loc="upper left")
    return drawn


def back(rows: list[Row], method: str, pool_rows: int) -> dict[int, float]:
    """Forgetting with a pool of that size above that with fresh text, as a share of that without replay; by seed."""
    target = rows[0]["target"]
    plain = by_seed(runs(rows, method="standard"), target)
    reused, fresh = (by_seed(group(rows, method, size), target) for size in (pool_rows, pools(rows, method)[-1]))
    return {seed: (reused[seed] - fresh[seed]) / plain[seed] for seed in plain.keys() & fresh.keys() & reused.keys()}


def over(shares: dict[int, float]) -> Interval | None:
    """The mean of the seeds, None without any."""
    return over_seeds([shares[seed] for seed in sorted(shares)]) if shares else None


def table(rows: list[Row]) -> str:
    """Each pool at the target loss."""
    target, standard = rows[0]["target"], runs(rows, method="standard")

    def ends(own: list[Run], brought: str) -> list[str]:
        steps = format_count(mean_at(own, target, lambda row: row["step"]))
        return [format_interval(mean_at(own, target)), brought, steps]

    lines = [["no replay", "–", "–", "–", *ends(standard, "–")]]
    for method, name in NAMES.items():
        for size in pools(rows, method):
            own, count = group(rows, method, size), tokens(rows, size)
            often = mean_at(own, target, uses)
            used = "–" if often is None else f"{often.value:.2g}"
            fresh = size == pools(rows, method)[-1]
            brought = "– (fresh)" if fresh else format_interval(over(back(rows, method, size)))
            lines.append([name, f"{count:,}", f"{count / rows[0]['parameters']:.2g}", used, *ends(own, brought)])
    head = [f"at a new loss of {target:g}", "distinct tokens", "a parameter", "times used", "forgetting"]
    return markdown([*head, "what reuse brings back", "steps"], lines)


def claims(rows: list[Row]) -> list[Claim]:
    """Our own findings: the paper's replay text is always fresh."""
    measure = "forgetting above that with fresh text, as a share of that without replay"
    *reused, _ = pools(rows, "kl_self")
    small, second, large = reused[0], reused[1], reused[-1]
    return measured(
        claim_over_seeds(
            f"under KL, {tokens(rows, large):,} tokens reused are as good as fresh ones",
            measure,
            list(back(rows, "kl_self", large).values()),
            below=0.02,
        ),
        claim_over_seeds(
            f"under KL, {tokens(rows, small):,} tokens reused are not enough",
            measure,
            list(back(rows, "kl_self", small).values()),
            above=0.05,
        ),
        claim_over_seeds(
            "next-token loss wants more distinct text than KL",
            f"{measure}, at {tokens(rows, second):,} tokens, next-token loss minus KL",
            differences(back(rows, "ntp_self", second), back(rows, "kl_self", second)),
            above=0.0,
        ),
    )
