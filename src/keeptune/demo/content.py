"""What the demo shows: the summary sentence, the content of the page, continuations, the table at the end."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.audit.answers import answer
from keeptune.audit.meter import Drift
from keeptune.demo.plan import LENGTH, REPLAY_ROWS, TASK_ROWS, DemoPlan

PROMPTS = (
    "The most important thing to remember about the human heart is that",
    "Photosynthesis is the process by which",
    "Once upon a time, in a small village by the sea, there lived",
    "To make a simple tomato soup, you need",
    "module counter(input clk, input reset, output reg [7:0] count);\n",
)
_NEW_TOKENS = 48


def continuations(models: dict[str, PreTrainedModel], tokenizer: PreTrainedTokenizerBase) -> list[dict[str, str]]:
    """Greedy continuations by every model, of a few everyday prompts and one of the new task."""
    prompts = [tokenizer(prompt)["input_ids"] for prompt in PROMPTS]
    table: list[dict[str, str]] = [{"prompt": prompt} for prompt in PROMPTS]
    for name, model in models.items():
        for row, new_tokens in zip(table, answer(model, prompts, _NEW_TOKENS, f"Continuations, {name}"), strict=True):
            row[name] = tokenizer.decode(new_tokens, skip_special_tokens=True)
    return table


def sentence(plan: DemoPlan, summary: dict[str, Any]) -> str:
    """The result in one sentence, with what it cost."""
    loss, minutes = summary["task_loss"], summary["minutes_by_stage"]
    ratio = summary["drift_ratio_equal_loss"]["self"]["value"]
    how = "just as well" if summary["equal_loss_reached"] else "almost as well"
    times = (minutes["replay"] + minutes["train replay"]) / max(minutes["train plain"], 0.01)
    return (
        f"With self-generated replay the model learned {plan.data} {how} (held-out loss {loss['replay']:.2f} against "
        f"{loss['plain']:.2f}, base {loss['base']:.2f}) with {1 - ratio:.0%} less drift on the base's own text, in "
        f"{times:.1f} times the time; one run each."
    )


def method(plan: DemoPlan) -> list[str]:
    """What was run, for the methods section of the page."""
    return [
        f"The base, {plan.model}, was tuned on {plan.data} twice, all weights, with the same data in the same order, "
        f"optimizer (AdamW), peak learning rate, batch of {TASK_ROWS} rows of {LENGTH} tokens and seed. The learning "
        f"rate follows a cosine schedule to the end of each run.",
        f"Plain: {plan.steps} steps of cross-entropy. Replay: {plan.replay_steps} steps of cross-entropy plus "
        f"{plan.lambda_:g} times KL(base‖tuned) on {REPLAY_ROWS} rows of {LENGTH} tokens, sampled from the base "
        "without a prompt; no row was used twice.",
        f"Matched steps compares both runs after {plan.steps} steps. Equal task loss compares the ends of both runs; "
        f"the replay run takes 1.5 times as many steps.",
        f"Task loss is measured on {plan.data} documents that no run trained on. Forgetting is measured on "
        f"{plan.documents} fresh samples of the base and on {plan.text}; neither was trained on, and no setting was "
        "chosen on them.",
    ]


def page_content(
    plan: DemoPlan,
    summary: dict[str, Any],
    rows: dict[str, list[dict[str, Any]]],
    drifts: dict[str, dict[str, Drift]],
    texts: list[dict[str, str]],
) -> dict[str, Any]:
    """The content of report.html."""
    return {
        "sentence": sentence(plan, summary),
        "summary": summary,
        "trajectories": rows,
        "readings": {
            text: {name: of_text[name].summary() for name in ("plain", "replay")} for text, of_text in drifts.items()
        },
        "continuations": texts,
        "method": method(plan),
    }


def print_summary(plan: DemoPlan, summary: dict[str, Any]) -> None:
    """The summary on standard output."""
    table = Table(title=f"{plan.model} on {plan.data}, nats per token")
    for column in ("", "base", "plain", "replay, same steps", "replay, same loss"):
        table.add_column(column, justify="right" if column else "left")
    models = ("plain", "replay_matched", "replay")
    table.add_row("steps", "0", *[str(steps) for steps in (plan.steps, plan.steps, plan.replay_steps)])
    loss = summary["task_loss"]
    table.add_row("held-out task loss", f"{loss['base']:.3f}", *[f"{loss[name]:.3f}" for name in models])
    for text, drift in summary["drift"].items():
        cells = [f"{drift['plain']['value']:.4f}"]
        for key, model in (("drift_ratio_matched_steps", "replay_matched"), ("drift_ratio_equal_loss", "replay")):
            cells.append(f"{drift[model]['value']:.4f} ({summary[key][text]['value']:.2f}×)")
        table.add_row(f"drift on {'its own text' if text == 'self' else text}", "0", *cells)
    console = Console(highlight=False)
    console.print(table)
    console.print(sentence(plan, summary))
    console.print(f"In brackets: the share of the plain run's drift. Details: {plan.folder / 'report.html'}")
