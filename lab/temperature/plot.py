"""Figure, table and claims of the temperature of the replay text."""

from __future__ import annotations

from typing import Any

from common.drawing import log_places, logarithmic, panels, whiskers
from common.grid import Row
from common.small.curves import Run, by_seed, differences, mean_at, runs, share_removed, values
from common.stats import Claim, claim_over_seeds, measured
from common.tables import format_count, format_interval, markdown
from keeptune.plot_style import BLUE, GREY, ORANGE

NAMES = {"kl_self": "KL, λ = 10", "ntp_self": "next-token loss, λ = 3"}


def group(rows: list[Row], method: str, temperature: float) -> list[Run]:
    """The runs of one setting."""
    return runs(rows, method=method, temperature=temperature)


def figure(rows: list[Row]) -> Any:
    """Left, forgetting by the temperature of the replay text; right, the steps to the target."""
    target, places = rows[0]["target"], values(rows, "temperature")
    drawn, (left, right) = panels(3.1)
    for axis, of in ((left, ()), (right, (lambda row: row["step"],))):
        plain = mean_at(runs(rows, method="standard"), target, *of)
        for method, colour, mark in (("kl_self", BLUE, "^"), ("ntp_self", ORANGE, "s")):
            points = [(place, mean_at(group(rows, method, place), target, *of)) for place in places]
            whiskers(axis, points, color=colour, marker=mark, label=NAMES[method])
        if plain is not None:
            axis.axhline(plain.value, color=GREY, linewidth=0.9, linestyle="--", label="no replay")
        axis.axvline(1, color=GREY, linewidth=0.6, linestyle=":")
        log_places(axis, places)
        logarithmic(axis, "y")
        axis.set_xlabel("temperature of the replay text")
    left.set_ylabel("forgetting: rise of the old loss,\nnats per token, mean and 95 % interval")
    left.set_title(f"where the new loss is {target:g}")
    right.set_ylabel("steps, mean and 95 % interval")
    right.set_title("what it takes to get there")
    left.legend()
    return drawn


def table(rows: list[Row]) -> str:
    """Each temperature at the target loss."""
    target, lines = rows[0]["target"], []
    settings = [("no replay", "–", runs(rows, method="standard"))]
    for method, name in NAMES.items():
        settings += [(name, f"{place:g}", group(rows, method, place)) for place in values(rows, "temperature")]
    for name, place, own in settings:
        kl, steps = (mean_at(own, target, lambda row, of=of: row[of]) for of in ("kl", "step"))
        lines.append([name, place, format_interval(mean_at(own, target)), format_interval(kl), format_count(steps)])
    head = [f"at a new loss of {target:g}", "temperature", "forgetting", "KL(base‖tuned) on old text", "steps"]
    return markdown(head, lines)


def claims(rows: list[Row]) -> list[Claim]:
    """Our own findings on text of another temperature; differences are taken within a seed."""
    target, (low, *_, high) = rows[0]["target"], values(rows, "temperature")
    plain = by_seed(runs(rows, method="standard"), target)

    def forgotten(method: str, place: float) -> dict[int, float]:
        return by_seed(group(rows, method, place), target)

    near = [differences(forgotten("kl_self", place), forgotten("kl_self", 1.0)) for place in (0.8, 1.25)]
    return measured(
        *(
            claim_over_seeds(
                f"a KL on text of temperature {place:g} still holds",
                "share of standard fine-tuning's forgetting that is gone at equal task loss",
                share_removed(forgotten("kl_self", place), plain),
                above=0.9,
            )
            for place in (low, high)
        ),
        claim_over_seeds(
            f"next-token loss on text of temperature {low:g} is worse than no replay",
            f"forgetting, temperature {low:g} minus no replay, nats",
            differences(forgotten("ntp_self", low), plain),
            above=0.0,
        ),
        claim_over_seeds(
            "next-token loss keeps less from surer text",
            "forgetting with next-token loss, temperature 0.6 minus 1, nats",
            differences(forgotten("ntp_self", 0.6), forgotten("ntp_self", 1.0)),
            above=0.0,
        ),
        claim_over_seeds(
            "under KL the temperature hardly matters near 1",
            "forgetting with KL, the higher of temperatures 0.8 and 1.25 minus 1, nats",
            max(near, key=lambda seeds: sum(seeds) / max(len(seeds), 1)),
            below=0.01,
        ),
    )
