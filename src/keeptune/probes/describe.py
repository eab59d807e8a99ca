"""The result of the capacity probe, on standard output."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from keeptune.probes.capacity import CONSTRAINED, NEARLY_NOTHING, PLAIN, SATURATED, SPARE, TIMES, UNDECIDED
from keeptune.stats import format_interval


def print_capacity(result: dict[str, Any]) -> None:
    """The two runs, what follows from them, and the verdict."""
    plan = result["plan"]
    console = Console(highlight=False, markup=False, emoji=False)
    table = Table(title=f"{plan['model']} on {plan['data']}, {plan['steps']} steps, nats per token, 95 % intervals")
    table.add_column("run")
    table.add_column("task loss gained", justify="right")
    table.add_column("KL(base‖tuned) on the base's own text", justify="right")
    for run, label in ((PLAIN, "plain, λ = 0"), (CONSTRAINED, f"constrained, λ = {plan['lambda_']:g}")):
        table.add_row(label, format_interval(result["gain"][run]), format_interval(result["kl"][run]))
    table.add_row("noise floor", "", f"{result['noise_floor']:.2g}")
    console.print(table)
    for name, label in (
        ("share", "Share of the plain run's gain that the constrained run reaches"),
        ("price", "Least KL for all of that gain, by the constrained run's line"),
        ("price_share", "As a share of the plain run's KL"),
    ):
        if result[name]:
            console.print(f"{label}: {format_interval(result[name])}.")
    if result["price_at_half"] is not None:
        console.print(
            f"After half of the steps it was {result['price_at_half']:.4f}; "
            f"at this pace it is at least {result['price_to_come']:.4f} after {TIMES} times the steps."
        )
    console.print(describe(result))


def describe(result: dict[str, Any]) -> str:
    """The verdict in a sentence, with what to expect or to do."""
    verdict, plan = result["verdict"], result["plan"]
    if verdict == SPARE:
        return "Spare capacity: the model can learn this task and keep its old predictions; expect replay to keep them."
    if verdict == SATURATED:
        return (
            f"Saturated: expect at least {result['price_to_come']:.2g} nats per token of forgetting for this gain, "
            f"even with {TIMES} times {plan['steps']} steps. A larger model pays less."
        )
    if verdict == UNDECIDED and result["price_at_half"] is not None and result["price"]["low"] > NEARLY_NOTHING:
        return (
            f"Undecided: the price is still falling, {result['price_at_half']:.2g} → {result['price']['value']:.2g} "
            f"nats per token over half of the steps; run again with --steps {2 * plan['steps']} and another --out."
        )
    if verdict == UNDECIDED:
        return f"Undecided: run longer than {plan['steps']} steps, or with another λ than {plan['lambda_']:g}."
    return f"{verdict.capitalize()}: read more documents, or run longer than {plan['steps']} steps."
