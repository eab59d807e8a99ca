"""docs/hosts.json and the page that people read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULT, PAGE = ROOT / "docs" / "hosts.json", ROOT / "docs" / "hosts.md"
_USE = {
    "Axolotl": (
        "`plugins: [keeptune.integrations.axolotl.KeepPlugin]` and a block `keep:` with the fields of `KeepConfig` "
        "(`lambda: 1.0`, `budget: 0.01`, …)",
        "the replay term in Axolotl's own trainer, readings, and an audit of the saved model in `<output_dir>/audit` "
        "(`audit: false` leaves it out, `audit: {docs: 16}` sets its fields)",
    ),
    "ms-swift": (
        '`swift sft --external_plugins "$(python -m keeptune.integrations.swift)" …`; settings in a TOML file that '
        "`KEEPTUNE_SETTINGS` names, or in a Python file of your own with `register(KeepConfig(...))`",
        "the replay term in ms-swift's own trainer, and readings",
    ),
    "Unsloth": (
        "`import unsloth` first, then `KeepSFTTrainer` in place of `SFTTrainer`: `recipes/unsloth_sft.py`",
        "the replay term, and readings",
    ),
    "LLaMA-Factory": (
        "`run_exp(arguments, callbacks=[DriftReadings()])`, from `keeptune.integrations.callback`",
        "readings and forecasts. **No replay**: LLaMA-Factory takes callbacks only, which cannot change the loss",
    ),
}
_HEAD = """# Hosts

keeptune inside the programs that people train with, and what it saves read by other programs. `make hosts` makes an
environment for each, runs the program's own commands on a tiny model on a CPU, and writes this page; `tests/hosts`
holds the runs. Whole result, with every reading: [hosts.json](hosts.json).

## How to use it

{USE}

Readings go to `<output_dir>/runs.jsonl`. Preference and reward training, and parallelism that splits a sequence or a
layer over processes, are refused in words.

## Runs
"""


def write(results: dict[str, Any]) -> None:
    """Both files."""
    RESULT.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    use = [f"| {host} | {write} | {adds} |" for host, (write, adds) in _USE.items()]
    table = ["| host | what to write | what it adds |", "|---|---|---|", *use]
    lines = [_HEAD.replace("{USE}", "\n".join(table))]
    for name, of in results.items():
        passed = sum(case["passed"] for case in of["cases"])
        versions = ", ".join(f"{library} {version}" for library, version in of["versions"].items())
        lines += [
            f"### {name}",
            "",
            f"{passed} of {len(of['cases'])} passed on {of['date']}. {of['why']}.",
            "",
            versions + ".",
        ]
        lines += ["", *(_models(of["cases"]) if "difference" in of["cases"][0] else _runs(of["cases"])), ""]
    PAGE.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _runs(cases: list[dict[str, Any]]) -> list[str]:
    lines = ["| run | shows | result | KL at the end, nats per token |", "|---|---|---|---|"]
    for case in cases:
        last = f"{case['readings'][-1]['KL']:.4f}" if case["readings"] else ""
        lines.append(f"| {case['case']} | {case['shows']} | {case['fault'] or 'as expected'} | {last} |")
    shown = next((case for case in cases if case["case"] == "keep"), cases[1])
    log = shown["log"][-8:]
    lines += ["", f"The end of the log of *{shown['case']}* (`{_short(shown['command'])}`), and its readings:", ""]
    lines += ["```text", *(line[:240] for line in log), "```", "", "```json"]
    lines += [*(json.dumps(row) for row in shown["readings"]), "```"]
    return lines


def _models(cases: list[dict[str, Any]]) -> list[str]:
    lines = ["| model | largest difference | result |", "|---|---|---|"]
    for case in cases:
        off = "" if case["difference"] is None else f"{case['difference']:.1e}"
        lines.append(f"| {case['case']} | {off} | {case['fault'] or 'the same'} |")
    return lines


def _short(command: str) -> str:
    return command if len(command) < 160 else command[:150] + " …"
