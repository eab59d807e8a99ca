"""Draw figure.svg and figure.png, and state the claims and the table, from results.csv alone.

python lab/pool_size/plot.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from curves import by_seed, mean_at, paired, runs, told
from drawing import logarithmic, whiskers
from grid import Row, draw
from stats import Claim, Interval, over_seeds

HERE = Path(__file__).resolve().parent
NAMES = {"kl_self": "KL", "ntp_self": "next-token loss"}


def pools(rows: list[Row], method: str) -> list[int]:
    """Rows of the pools that a method replayed, from the smallest on; the last is the fresh one."""
    return sorted({row["pool_rows"] for row in rows if row["method"] == method})


def tokens(rows: list[Row], pool_rows: int) -> int:
    """Distinct tokens that are trained on: one row of a pool is kept out."""
    length: int = rows[0]["length"]
    return (pool_rows - 1) * length


def uses(row: Row) -> float:
    """How often each row of the pool has been replayed."""
    often: float = row["step"] * row["replay_rows"] / (row["pool_rows"] - 1)
    return often


def figure(rows: list[Row]) -> Any:
    """Left, forgetting by the size of the pool; right, what reuse adds over fresh text by how often a row is used."""
    import matplotlib.pyplot as plt  # noqa: PLC0415 — claims need no pictures

    from keeptune.plot_style import BLUE, GREY, ORANGE, PAGE  # noqa: PLC0415

    target = rows[0]["target"]
    drawn, (left, right) = plt.subplots(1, 2, figsize=(PAGE, 3.2))
    plain, _ = mean_at(runs(rows, method="standard"), target)
    for method, colour, mark in (("kl_self", BLUE, "^"), ("ntp_self", ORANGE, "s")):
        *reused, fresh = pools(rows, method)
        look = {"color": colour, "marker": mark}
        points = [(tokens(rows, size), at_pool(rows, method, size)) for size in reused]
        whiskers(left, points, label=NAMES[method], **look)
        edge = 4 * tokens(rows, reused[-1])
        whiskers(left, [(edge, at_pool(rows, method, fresh))], fillstyle="none", linestyle="none", **look)
        points = [(mean_uses(rows, method, size), over(back(rows, method, size))) for size in reused]
        whiskers(right, [(place, share) for place, share in points if place is not None], label=NAMES[method], **look)
    sizes = [tokens(rows, size) for size in pools(rows, "kl_self")[:-1]]
    left.set_xscale("log")
    left.set_xticks([*sizes, 4 * sizes[-1]], [*(f"{size:,}" for size in sizes), "fresh,\nused once"])
    left.minorticks_off()
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


def at_pool(rows: list[Row], method: str, pool_rows: int) -> Interval | None:
    """Forgetting at the target with a pool of that size."""
    return mean_at(runs(rows, method=method, pool_rows=pool_rows), rows[0]["target"])[0]


def mean_uses(rows: list[Row], method: str, pool_rows: int) -> float | None:
    """How often a row is used by the time that the target is reached."""
    often, _ = mean_at(runs(rows, method=method, pool_rows=pool_rows), rows[0]["target"], uses)
    return None if often is None else often.value


def back(rows: list[Row], method: str, pool_rows: int) -> dict[int, float]:
    """Forgetting with a pool of that size above that with fresh text, as a share of that without replay; by seed."""
    target = rows[0]["target"]
    plain = by_seed(runs(rows, method="standard"), target)
    fresh = by_seed(runs(rows, method=method, pool_rows=pools(rows, method)[-1]), target)
    reused = by_seed(runs(rows, method=method, pool_rows=pool_rows), target)
    return {seed: (reused[seed] - fresh[seed]) / plain[seed] for seed in plain.keys() & fresh.keys() & reused.keys()}


def over(values: dict[int, float]) -> Interval | None:
    """The mean of the seeds, None without any."""
    return over_seeds([values[seed] for seed in sorted(values)]) if values else None


def table(rows: list[Row]) -> str:
    """Each pool at the target loss."""
    target = rows[0]["target"]
    lines = [
        f"| at a new loss of {target:g} | distinct tokens | a parameter | times used | forgetting "
        "| what reuse brings back | steps |",
        "|---|---|---|---|---|---|---|",
    ]
    plain, _ = mean_at(runs(rows, method="standard"), target)
    steps, _ = mean_at(runs(rows, method="standard"), target, lambda row: row["step"])
    lines.append(f"| no replay | – | – | – | {told(plain)} | – | {whole(steps)} |")
    for method, name in NAMES.items():
        sizes = pools(rows, method)
        for size in sizes:
            group = runs(rows, method=method, pool_rows=size)
            steps, _ = mean_at(group, target, lambda row: row["step"])
            often, _ = mean_at(group, target, uses)
            count = tokens(rows, size)
            given, used = (
                f"{count:,} | {count / rows[0]['parameters']:.2g}",
                "–" if often is None else f"{often.value:.2g}",
            )
            brought = "– (fresh)" if size == sizes[-1] else told(over(back(rows, method, size)))
            forgotten = told(mean_at(group, target)[0])
            lines.append(f"| {name} | {given} | {used} | {forgotten} | {brought} | {whole(steps)} |")
    return "\n".join(lines)


def whole(interval: Interval | None) -> str:
    """A count of steps."""
    return "–" if interval is None else f"{interval.value:.0f}"


def claims(rows: list[Row]) -> list[Claim]:
    """What the paper, whose replay text is always fresh, leaves open."""
    measure = "forgetting above that with fresh text, as a share of that without replay"
    *reused, _ = pools(rows, "kl_self")
    small, second, large = reused[0], reused[1], reused[-1]
    poor = paired(back(rows, "ntp_self", second), back(rows, "kl_self", second), lambda ntp, kl: ntp - kl)
    wanted: list[tuple[str, str, list[float], dict[str, float]]] = [
        (
            f"under KL, {tokens(rows, large):,} tokens reused are as good as fresh ones",
            measure,
            list(back(rows, "kl_self", large).values()),
            {"below": 0.02},
        ),
        (
            f"under KL, {tokens(rows, small):,} tokens reused are not enough",
            measure,
            list(back(rows, "kl_self", small).values()),
            {"above": 0.05},
        ),
        (
            "next-token loss wants more distinct text than KL",
            f"{measure}, at {tokens(rows, second):,} tokens, next-token loss minus KL",
            poor,
            {"above": 0.0},
        ),
    ]
    return [
        Claim(claim=claim, measure=told_as, ours=over_seeds(values), **bound)
        for claim, told_as, values, bound in wanted
        if values
    ]


if __name__ == "__main__":
    draw(HERE, figure)
