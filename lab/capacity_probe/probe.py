"""Would a short probe tell the bases with room from those without? Read from committed runs, nothing is trained.

    python lab/capacity_probe/probe.py

Writes table.csv and the table of README.md beside it. The long runs of pretraining_length, model_size and
capacity_frontier say what is true of a base; the first steps of the runs with λ = 0 and λ = 10 are the probe.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

LAB = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(LAB))

from common.grid import Row  # noqa: E402
from common.results import results, write_csv  # noqa: E402
from common.small.curves import Run, at_loss, forgetting, runs  # noqa: E402
from common.tables import markdown  # noqa: E402
from keeptune.storage import write_text  # noqa: E402

SOURCES = ("pretraining_length", "model_size", "capacity_frontier")
START, END = "<!-- table: made by probe.py -->", "<!-- end of table -->"
TARGET = 4.1
# The bounds of capacity_frontier on what is forgotten at the target, nats per token.
ROOM, NONE = 0.02, 0.05
# A run with the strongest λ that ends so near the target, but above it, leaves a base undetermined.
NEAR = 0.2
STEPS = 200
STRONG = 10.0
# What the former `keeptune capacity` called nearly nothing, and the share of the plain run's gain that it asked for.
BOUND, SHARE, TIMES = 0.02, 0.8, 10
# By old text: half of the gain is enough, and prices this near the bound are undecided.
OLD_TEXT_SHARE, MARGIN = 0.5, 0.003


class Truth(StrEnum):
    """What the long runs say of a base."""

    ROOM = "room"
    NONE = "no room"
    BORDERLINE = "borderline"


class Verdict(StrEnum):
    """What a probe says."""

    SPARE = "spare"
    SATURATED = "saturated"
    UNDECIDED = "undecided"

    def is_right(self, truth: Truth) -> bool | None:
        """None for a borderline base."""
        if truth is Truth.BORDERLINE:
            return None
        return self in (Verdict.UNDECIDED, Verdict.SPARE if truth is Truth.ROOM else Verdict.SATURATED)


class Base(NamedTuple):
    """A pretrained model."""

    width: int
    tokens_per_parameter: float
    seed: int


def bases() -> dict[Base, list[Run]]:
    """The fine-tuning runs of each base."""
    found: dict[Base, list[Run]] = {}
    for name in SOURCES:
        for run in runs(results(LAB / name, LAB / name / "results.csv")):
            if run[-1]["step"] and not run[0].get("mixture"):
                base = Base(run[0]["width"], run[0]["tokens_per_parameter"], run[0]["seed"])
                found.setdefault(base, []).append(run)
    return dict(sorted(found.items()))


def truth(of_base: list[Run]) -> tuple[Truth, float]:
    """Whether a base has room, and what it forgets at the target with the λ that forgets least there."""
    reached = [at_loss(run, TARGET) for run in of_base if run[0]["lambda_"]]
    least = min(value for value in reached if value is not None)
    strong = [run[-1]["new_loss"] for run in of_base if run[0]["lambda_"] == STRONG]
    if least < ROOM:
        return Truth.ROOM, least
    if least > NONE and strong and min(strong) > TARGET + NEAR:
        return Truth.NONE, least
    return Truth.BORDERLINE, least


def gain(row: Row) -> float:
    """Fall of the new loss, nats per token."""
    return float(row["base_new_loss"] - row["new_loss"])


def probe(of_base: list[Run]) -> dict[str, Any] | None:
    """Share and prices after `STEPS` steps, or as many as the plain run has; None without a run with λ = 10.

    A price is what the run with λ = 10 moved, times the plain run's gain over its own: KL on old text, as the former
    probe judged by (on the base's own text), and the rise of the loss on old text.
    """
    plain = max((run for run in of_base if not run[0]["lambda_"]), key=lambda run: run[-1]["step"])
    strong = [run for run in of_base if run[0]["lambda_"] == STRONG]
    if not strong:
        return None
    steps = max(row["step"] for row in plain if row["step"] <= STEPS)
    end = max((row for row in strong[0] if row["step"] <= steps), key=lambda row: row["step"])
    half = max((row for row in strong[0] if row["step"] <= end["step"] // 2), key=lambda row: row["step"])
    whole = gain(max((row for row in plain if row["step"] <= end["step"]), key=lambda row: row["step"]))

    def price(row: Row, moved: Callable[[Row], float]) -> float:
        return moved(row) * whole / gain(row)

    kl, kl_half = (price(row, lambda one: float(one["kl"])) for row in (end, half))
    share, rise = gain(end) / whole, price(end, forgetting)
    found = {"steps": end["step"], "share": share, "kl_price": kl, "rise_price": rise}
    by_kl = former_rule(share, kl, kl_half, end["step"] / half["step"])
    return {**found, "by_kl": by_kl, "by_old_text": rule(share, rise)}


def former_rule(share: float, price: float, at_half: float, longer: float) -> Verdict:
    """The rule of the former `keeptune capacity`, without its intervals."""
    if price <= BOUND:
        return Verdict.SPARE if share >= SHARE else Verdict.UNDECIDED
    fall = max(1.0, at_half / price)
    to_come = price * float(TIMES ** -(math.log(fall) / math.log(longer)))
    return Verdict.SATURATED if to_come > BOUND else Verdict.UNDECIDED


def rule(share: float, price: float) -> Verdict:
    """The rule by old text."""
    if share < OLD_TEXT_SHARE or abs(price - BOUND) <= MARGIN:
        return Verdict.UNDECIDED
    return Verdict.SPARE if price < BOUND else Verdict.SATURATED


def rows() -> list[Row]:
    """A row for every base that was probed."""
    table = []
    for base, of_base in bases().items():
        said = probe(of_base)
        if said is None:
            continue
        known, least = truth(of_base)
        right = {f"{name}_right": said[name].is_right(known) for name in ("by_kl", "by_old_text")}
        table.append({**base._asdict(), "truth": known, "forgetting": least, **said, **right})
    return table


def as_markdown(table: list[Row]) -> str:
    """The table of README.md."""
    lines = []
    for row in table:
        base = [f"{row['width']}", f"{row['tokens_per_parameter']:g}", f"{row['seed']}"]
        numbers = [f"{row['steps']}", f"{row['share']:.2f}", f"{row['kl_price']:.4f}"]
        wrong = {name: "" if row[f"{name}_right"] is not False else " (wrong)" for name in ("by_kl", "by_old_text")}
        by_kl, by_old = f"{row['by_kl']}{wrong['by_kl']}", f"{row['by_old_text']}{wrong['by_old_text']}"
        known = f"{row['truth']} ({row['forgetting']:.3f})"
        lines.append([*base, known, *numbers, by_kl, f"{row['rise_price']:.4f}", by_old])
    head = ["width", "tokens a parameter", "seed", "long runs: forgetting at 4.1", "steps", "share of the gain"]
    return markdown([*head, "price, KL", "verdict", "price, loss on old text", "verdict"], lines)


def main() -> None:
    folder = Path(__file__).parent
    table = rows()
    write_csv(folder / "table.csv", table)
    page = (folder / "README.md").read_text(encoding="utf-8")
    before, after = page.partition(START)[0], page.partition(END)[2]
    write_text(folder / "README.md", f"{before}{START}\n{as_markdown(table)}\n{END}{after}")


if __name__ == "__main__":
    main()
