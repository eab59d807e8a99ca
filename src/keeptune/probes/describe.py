"""What the capacity probe found, on standard output."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from keeptune.probes.capacity import NEARLY_NOTHING, SATURATED, SPARE, TIMES, UNDECIDED
from keeptune.stats import format_interval


def print_capacity(found: dict[str, Any]) -> None:
    """The two runs, what follows from them, and the verdict."""
    plan = found["plan"]
    console = Console(highlight=False, markup=False, emoji=False)
    table = Table(title=f"{plan['model']} on {plan['data']}, {plan['steps']} steps, nats per token, 95 % intervals")
    table.add_column("run")
    table.add_column("task loss gained", justify="right")
    table.add_column("KL(base‖tuned) on the base's own text", justify="right")
    for run, label in (("plain", "plain, λ = 0"), ("stiff", f"stiff, λ = {plan['lambda_']:g}")):
        table.add_row(label, format_interval(found["gain"][run]), format_interval(found["kl"][run]))
    table.add_row("noise floor", "", f"{found['noise_floor']:.2g}")
    console.print(table)
    if found["share"]:
        console.print(f"Share of the plain run's gain that the stiff run reaches: {format_interval(found['share'])}.")
    if found["price"]:
        console.print(f"Least KL for all of that gain, by the stiff run's line: {format_interval(found['price'])}.")
        console.print(f"That is of the plain run's KL: {format_interval(found['price_share'])}.")
    if found["price_at_half"] is not None:
        console.print(
            f"After half of the steps it was {found['price_at_half']:.4f}; "
            f"at this pace {TIMES} times the steps leave {found['price_to_come']:.4f} or more."
        )
    console.print(sentence(found))


def sentence(found: dict[str, Any]) -> str:
    """The verdict in words, with what to expect or to do."""
    verdict, plan = found["verdict"], found["plan"]
    if verdict == SPARE:
        return "Spare capacity: this task can be learned while the old predictions stay; expect replay to hold them."
    if verdict == SATURATED:
        return (
            f"Saturated: expect {found['price_to_come']:.2g} nats per token of forgetting or more for this gain, even "
            f"in {TIMES} times {plan['steps']} steps. A larger model pays less."
        )
    if verdict == UNDECIDED and found["price_at_half"] is not None and found["price"]["low"] > NEARLY_NOTHING:
        return (
            f"Undecided: the price is still falling, {found['price_at_half']:.2g} → {found['price']['value']:.2g} nats "
            f"per token over half of the steps; run again with --steps {2 * plan['steps']} and another --out."
        )
    if verdict == UNDECIDED:
        return f"Undecided: run longer than {plan['steps']} steps, or with another λ than {plan['lambda_']:g}."
    return f"{verdict.capitalize()}: read more documents, or run longer than {plan['steps']} steps."
