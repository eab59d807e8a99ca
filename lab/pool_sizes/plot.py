"""Figure, table and claims of how many distinct replay tokens are enough, by the size of the model."""

from __future__ import annotations

from typing import Any

import numpy as np

from common.drawing import logarithmic, panels, whiskers
from common.grid import Row
from common.small.curves import by_seed, read_where_chosen, runs, values
from common.stats import Claim, claim_over_seeds, measured, over_seeds
from common.tables import format_interval, markdown
from keeptune.plot_style import COLOURS, GREY, MARKS
from pool_size.plot import back, over, pools, tokens

ENOUGH = 0.05
"""What reuse may bring back, as a share of forgetting without replay: more is called not enough in pool_size."""
METHOD = "kl_self"


def of_width(rows: list[Row], width: int) -> list[Row]:
    """The reported rows of a size, to be read at the loss that the choosing seed's run with fresh text ends at."""
    own = [row for row in rows if row["width"] == width]
    return read_where_chosen(own, method=METHOD, pool_rows=pools(own, METHOD)[-1])


def needed(own: list[Row]) -> dict[int, float]:
    """Distinct tokens at which reuse brings back `ENOUGH`, by seed.

    Straight in the logarithm of tokens between two pools, and beyond the smallest or largest along the nearest two.
    """
    reused = pools(own, METHOD)[:-1]
    if len(reused) < 2:
        return {}
    shares = [back(own, METHOD, size) for size in reused]
    places = [float(np.log(tokens(own, size))) for size in reused]
    found = {}
    for seed in set.intersection(*(set(of_size) for of_size in shares)):
        heights = [of_size[seed] for of_size in shares]
        after = next((place for place, height in enumerate(heights) if height <= ENOUGH), len(heights) - 1)
        low, high = (after - 1, after) if after else (0, 1)
        if heights[low] != heights[high]:
            part = (heights[low] - ENOUGH) / (heights[low] - heights[high])
            found[seed] = float(np.exp(places[low] + part * (places[high] - places[low])))
    return found


def figure(rows: list[Row]) -> Any:
    """What reuse brings back by distinct tokens, a line a size."""
    drawn, axis = panels(3.0, 1)
    for width, colour, mark in zip(values(rows, "width"), COLOURS, MARKS, strict=False):
        own = of_width(rows, width)
        points = [(tokens(own, size), over(back(own, METHOD, size))) for size in pools(own, METHOD)[:-1]]
        whiskers(axis, points, color=colour, marker=mark, label=f"{own[0]['parameters'] / 1e6:.2g} M parameters")
    axis.axhline(ENOUGH, color=GREY, linewidth=0.8, linestyle="--")
    logarithmic(axis, "x")
    axis.set_xlabel("distinct replay tokens")
    axis.set_ylabel("forgetting above that with fresh text,\nas a share of that without replay")
    axis.legend()
    return drawn


def table(rows: list[Row]) -> str:
    """Each size: forgetting without replay and with fresh text, what reuse brings back, and the tokens needed."""
    lines = []
    for width in values(rows, "width"):
        own = of_width(rows, width)
        *reused, fresh = pools(own, METHOD)
        target, of = own[0]["target"], list(needed(own).values())
        ends = [runs(own, method="standard"), runs(own, method=METHOD, pool_rows=fresh)]
        forgotten = [list(by_seed(group, target).values()) for group in ends]
        cells = [format_interval(over_seeds(found) if found else None) for found in forgotten]
        cells += [format_interval(over(back(own, METHOD, size))) for size in reused]
        lines.append([f"{own[0]['parameters'] / 1e6:.2g} M", f"{target:g}", *cells])
        lines[-1].append(format_interval(over_seeds(of) if of else None, 0, none="–"))
    first = of_width(rows, values(rows, "width")[0])
    pools_of = [f"{tokens(first, size):,} tokens" for size in pools(first, METHOD)[:-1]]
    head = ["parameters", "new loss", "no replay", "fresh text", *pools_of, f"tokens for {ENOUGH:g}"]
    return markdown(head, lines)


def claims(rows: list[Row]) -> list[Claim]:
    """Our own question: does the text that is needed grow with the model?"""
    by_width = {width: of_width(rows, width) for width in values(rows, "width")}
    tokens_of = {width: needed(own) for width, own in by_width.items()}
    if len(tokens_of) < 2:
        return []
    sizes = np.log([by_width[width][0]["parameters"] for width in tokens_of])
    seeds = sorted(set.intersection(*(set(found) for found in tokens_of.values())))
    slopes = [float(np.polyfit(sizes, np.log([found[seed] for found in tokens_of.values()]), 1)[0]) for seed in seeds]
    what = f"slope of log(distinct tokens at which reuse brings back {ENOUGH:g}) in log(parameters)"
    return measured(
        claim_over_seeds("the replay text that is enough grows less than the model does", what, slopes, below=1.0),
        claim_over_seeds("the replay text that is enough grows with the model", what, slopes, above=0.0),
    )
