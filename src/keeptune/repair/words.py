"""A repair in words: its answer, its table, its card. Everything is a function of the content of repair.json."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from keeptune.repair.outcome import Answer, Finished
from keeptune.repair.reading import Ends
from keeptune.repair.settings import RepairSettings
from keeptune.report.table import Column, Table, interval, left, number, text
from keeptune.report.words import interval_text, shown_number
from keeptune.stats import format_interval
from keeptune.train.budget.certificate import describe

_PER_TOKEN = "nats per token"  # noqa: S105
_ANSWERED = {
    Answer.REPAIRED: "Repaired within the budget",
    Answer.INCONCLUSIVE: "Not surely within the budget",
    Answer.NOT_REACHABLE: "The budget was not reached; this is the nearest",
}


def title_of(result: Mapping[str, Any], name: str) -> str:
    """A method in a few words."""
    return str(result["titles"].get(name, name))


def sentence(result: Mapping[str, Any]) -> str:
    """The answer, for someone who reads nothing else."""
    answer, budget = Answer(result["answer"]), f"{result['settings']['budget']:g} {_PER_TOKEN}"
    before, chosen, certificate = result["tuned"]["kl"], result["chosen"], result["certificate"]
    if answer is Answer.NOTHING:
        kl = _kl(certificate["kl"])
        return f"Nothing to repair: the tuned model's KL to its base is {kl}, certified within {budget}."
    if chosen is None:
        return f"Not reachable: no candidate keeps {_kept(result)} of what was learned."
    cost = (
        f"KL to the base {_number(before)} → {_kl(chosen['kl'])} ({_share(chosen['undone'])} undone), "
        f"{_share(chosen['lost'])} of what was learned lost, by {title_of(result, chosen['method'])}"
    )
    if answer is Answer.REPAIRED:
        return f"Repaired within {budget}: {cost}."
    if answer is Answer.INCONCLUSIVE:
        return f"Inconclusive: the certificate's interval contains {budget}; more --rows narrow it. {cost}."
    return f"Not reachable within {budget} where {_kept(result)} of what was learned is to stay. The nearest: {cost}."


def _kept(result: Mapping[str, Any]) -> str:
    return shown_number(1 - result["settings"]["most_lost"], ".0%")


def _number(given: Mapping[str, Any]) -> str:
    return shown_number(given["value"])


def _kl(given: Mapping[str, Any]) -> str:
    return interval_text(given)


def _share(given: Mapping[str, Any]) -> str:
    return interval_text(given, ".1%")


def table(result: Mapping[str, Any]) -> Table:
    """The best candidate of every method within the budget, on the rows that it was chosen on."""
    rows = []
    for name in result["titles"]:
        own = [point for point in result["frontier"] if point["method"] == name]
        if not own:
            continue
        within = [point for point in own if (point["kl"]["high"] or point["kl"]["value"]) <= result["limit"]]
        best = min(within, key=lambda point: point["lost"]["value"], default=None)
        best = best or min(own, key=lambda point: point["kl"]["value"])
        rows.append(
            {
                left("method"): text(title_of(result, name)),
                Column("strength"): number(best["strength"], ".3f"),
                Column("KL to the base", unit=_PER_TOKEN): interval(best["kl"]),
                Column("undone", unit="of KL(base‖tuned)"): interval(best["undone"], ".1%"),
                Column("learning lost", unit="of the gain"): interval(best["lost"], ".1%"),
            }
        )
    caption = "The best candidate of each method within the budget, on the rows that it was chosen on"
    return Table.of("methods", caption, rows)


def next_command(result: Mapping[str, Any]) -> str:
    """How to measure the result on other text."""
    out, base = result["settings"]["out"], result["settings"]["base"]
    return shlex.join(["keeptune", "audit", base, f"{out}/model"])


def card(settings: RepairSettings, finished: Finished, ends: Ends, base_name: str, title: str) -> str:
    """The card saved with a repaired model, from readings of rows that nothing was chosen on."""
    point, before, certificate = finished.point, ends.tuned.forgotten, finished.certificate
    task = ends.tuned.task_loss is not None
    on = f"held-out documents of {settings.task_text}" if task else "text that the tuned model writes"
    measure = "task loss" if task else "KL(tuned‖model)"
    costs = [reading.task_loss if task else reading.unlearned for reading in (ends.base, ends.tuned, point.reading)]
    base_cost, tuned_cost, own_cost = ("–" if cost is None else f"{cost.value:.4f}" for cost in costs)
    adapter = finished.rank is not None
    undone, lost = (format_interval(share.as_dict(), ".1%") for share in (point.undone, point.lost))
    told = ", ".join(f"{name} {version}" for name, version in certificate.versions.items())
    return f"""---
base_model: {base_name}
library_name: {"peft" if adapter else "transformers"}
tags: [keeptune, repair]
---

# {settings.tuned}, repaired towards {settings.base}

{_ANSWERED[finished.answer]}: {title}, strength {point.strength:.3f}.
Saved as {finished.result}.

| {_PER_TOKEN} | base | tuned | repaired |
|---|---|---|---|
| drift: KL(base‖model) on the base's own text | 0 | {before.value:.4f} | {format_interval(point.forgotten.as_dict())} |
| learning: {measure} on {on} | {base_cost} | {tuned_cost} | {own_cost} |

Of the drift {undone} is undone, of what was learned {lost} is lost: 95 % intervals over rows that the choice never saw.

{describe(certificate)}

Seed {settings.seed}; {told}. Measure it on other text with `keeptune audit BASE MODEL --text NAME=SOURCE`.
"""
