"""Put measured numbers and pictures into README.md, between its markers.

    python docs/update_readme.py demo FOLDER …      # folders of keeptune demo, one a seed
    python benchmarks/bench_audit.py … && python docs/update_readme.py audit
    make figures && python docs/update_readme.py laws
    python docs/update_readme.py budgets

`demo` joins the folders' summary.json in benchmarks/results/demo.json, writes from them, and photographs the top of the
first one's report.html with headless Chromium into docs/demo.png; that run's minutes are the demo's cost. `audit`
writes from benchmarks/results/audit_*.json and bench_audit.json; its pictures are those of docs/screenshots.py. `laws` writes from lab/forgetting_laws/laws.json and
benchmarks/results/{forecast,forecast_law,laws_synthetic}.json. `budgets` writes from bench_budgets.jsonl.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results.md"
WIDTH, HEIGHT = 1180, 1420
MODELS = ("base", "plain", "replay")
WORDS = {"higher": "refuses more", "lower": "refuses less", "no change": "no change shown"}


def over_runs(values: list[float], form: str) -> str:
    """Median and range."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def demo_section(runs: list[dict[str, Any]]) -> str:
    base, plain, replay = (statistics.median(run["task_loss"][name] for run in runs) for name in MODELS)
    parts = [one["value"] for run in runs for one in run["drift_ratio_equal_loss"].values()]
    steps = runs[0]["steps"]
    return f"""A 135 M-parameter chat model learns Verilog. With self-generated replay it reaches a held-out task loss of
{replay:.3f} nats per token (plain fine-tuning {plain:.3f}, base {base:.3f}) with **{1 - max(parts):.0%} to {1 - min(parts):.0%} less drift**,
depending on the old text{" and the run" if len(runs) > 1 else ""}; {"one training run" if len(runs) == 1 else f"{len(runs)} training runs"} of each. The plain run took {steps["plain"]} steps. The replay run took {steps["replay"]}, each
with one row of replay for two rows of the task.

![Drift of the replay run as a part of the plain run's, and task loss and drift along both runs](docs/demo.png)"""


def demo_table(runs: list[dict[str, Any]]) -> str:
    steps = runs[0]["steps"]
    texts = list(runs[0]["drift_ratio_equal_loss"])

    def row(words: str, key: str) -> str:
        return (
            f"| {words} | {' | '.join(over_runs([run[key][text]['value'] for run in runs], '.3f') for text in texts)} |"
        )

    losses = [run["task_loss"]["replay"] - run["task_loss"]["plain"] for run in runs]
    documents = " and ".join(str(runs[0]["drift_ratio_equal_loss"][text]["documents"]) for text in texts)
    lines = [
        f"| drift of the replay run, as a part of the plain run's | on the base's own text | on English text (`{texts[1]}`) |",
        "|---|---|---|",
        row(f"after the same {steps['plain']} steps", "drift_ratio_matched_steps"),
        row(f"at equal task loss (replay takes {steps['replay']} steps)", "drift_ratio_equal_loss"),
        "",
        f"Medians and ranges over training runs (seeds {', '.join(str(run['seed']) for run in runs)}), each read on {documents} documents; drift is",
        f"KL(base‖tuned). Held-out task loss of replay over plain: {over_runs(losses, '+.3f')} nats per token.",
        "Raw numbers: [benchmarks/results/demo.json](../benchmarks/results/demo.json).",
    ]
    return "\n".join(lines).replace("(-", "(−").replace(" -", " −")


def cost_section(run: dict[str, Any]) -> str:
    machine, steps = run["machine"], run["steps"]
    return f"""The demo trains {steps["plain"]} plain steps of 8 rows and {steps["replay"]} steps of 8 task rows and 4 replay rows, of 128 tokens each.
That took {run["minutes"]:.0f} minutes on {machine["threads"]} cores ({machine["processor"]}, no GPU) which had other work too, reading drift at every stage
and writing the replay text included. On quiet cores it was not timed."""


class Audited:
    """What README takes from an audit's report: findings of version 2, or the report of an earlier version."""

    def __init__(self, report: dict[str, Any]) -> None:
        self.report = report

    def finding(self, subject: str, measure: str, part: str = "") -> dict[str, Any]:
        """value, low, high, n, and for refusals the shares of both models and the verdict."""
        if "findings" in self.report:
            wanted = {"subject": subject, "measure": measure, "part": part}
            return next(one for one in self.report["findings"] if wanted.items() <= one.items())
        if measure in ("accuracy", "agreement") and subject in self.report["tasks"]:
            result = self.report["tasks"][subject]["formats"][part]["per_character"]
            return {**result["change" if measure == "accuracy" else "agreement"], "n": result["items"]}
        if measure == "refusals":
            of_set = self.report["safety"]["sets"][subject]
            found = of_set["detectors"][part]
            levels = {"base": found["refused_base"], "tuned": found["refused_tuned"]}
            return {**found["change"], **levels, "verdict": found["verdict"], "n": of_set["asked"]}
        reading = self.report["texts"][subject]
        return {**reading["measures"][measure], "n": reading["documents"]}


def audit_section(plain: dict[str, Any], replay: dict[str, Any], cost: dict[str, Any]) -> str:
    models = (Audited(plain), Audited(replay))

    def row(words: str, *cells: str) -> str:
        return f"| {words} | {' | '.join(cells)} |"

    def ends(subject: str, measure: str, form: str, part: str = "") -> list[str]:
        shown = []
        for model in models:
            one = model.finding(subject, measure, part)
            shown.append(f"{one['value']:{form}} [{one['low']:{form}}, {one['high']:{form}}]".replace("-", "−"))
        return shown

    names = {"self": "text that the base wrote itself", "self-chat": "chats that it wrote itself",
             "wikitext2": "WikiText-2, test", "pydoc": "`pydoc`", "verilog": "`verilog`, the task"}  # fmt: skip
    lines = ["| demo model, against its base | tuned plainly | tuned with replay |", "|---|---|---|"]
    for text, words in names.items():
        documents = models[0].finding(text, "kl")["n"]
        lines.append(row(f"drift, KL on {words} ({documents} documents)", *ends(text, "kl", ".3f")))
        if text in ("wikitext2", "pydoc", "verilog"):
            lines.append(row("change of loss there, below 0 predicted better", *ends(text, "ce_change", "+.3f")))
    about = f"ARC-Challenge as chats ({models[0].finding('arc', 'accuracy', 'chat')['n']} questions)"
    lines.append(row(f"{about}: change of accuracy", *ends("arc", "accuracy", "+.1%", "chat")))
    lines.append(row(f"{about}: the base's own answer", *ends("arc", "agreement", ".1%", "chat")))
    for name, words in (("advbench", "AdvBench goals"), ("harmless", "harmless prompts")):
        found = [model.finding(name, "refusals", "rules") for model in models]
        refused = [
            f"{one['base']['value']:.0%} → {one['tuned']['value']:.0%}, {WORDS.get(one['verdict'], one['verdict'])}"
            for one in found
        ]
        lines.append(row(f"{found[0]['n']} {words} refused, by string rules", *refused))
    lines.append(row("minutes on two cores", f"{cost['minutes_plain']:.1f}", f"{cost['minutes_replay']:.1f}"))
    return "\n".join(
        [
            "![The page of an audit](audit-light.png)",
            "",
            *lines,
            "",
            "In brackets 95 % intervals over documents or items, one training run a method; whole reports:",
            "[plain](../benchmarks/results/audit_plain.json), [replay](../benchmarks/results/audit_replay.json), "
            "[cost](../benchmarks/results/bench_audit.json).",
        ]
    )


def own_readings(forecasts: dict[str, Any], measure: str) -> str:
    """Errors of a measure's forecasts on the judged sweeps at each share, those of no further change, and coverage."""
    lines = [line for line in forecasts["summary"] if (line["sweeps_are"], line["measure"]) == ("judged", measure)]
    own, still, held = (
        ", ".join(f"{line[column]:.0%}" for line in lines)
        for column in ("error_library", "error_no_change", "held_library")
    )
    sweeps = max(line["sweeps"] for line in lines)
    return f"{own} (no further change: {still}; {sweeps} sweeps; 90 % intervals hold {held})"


def laws_section(laws: dict[str, Any], with_law: dict[str, Any], forecasts: dict[str, Any]) -> str:
    shares = {line["share"]: [] for line in with_law["spanish"]}
    held = runs = 0
    for domain in with_law.values():
        for line in domain:
            if line["measure"] == "l_f_rise":
                shares[line["share"]].append(line["mean_error"])
                held, runs = held + line["held"], runs + line["runs"]

    def r2(law: str) -> str:
        found = [of[law]["r2"] if law == "line" else of[law]["r2"][1] for of in laws.values()]
        return " and ".join(f"{value:.3f}" for value in found)

    lines = [
        "![Laws of forgetting on two domains](../lab/forgetting_laws/figure.png)",
        "",
        "| SmolLM2, LoRA of ranks 4–64, Verilog and Spanish, one run a rank | ours | paper |",
        "|---|---|---|",
        f"| R² of forgetting as a line in task loss | {r2('line')} | .945 and .974 |",
        f"| R² of forgetting as a law of tuned parameters and steps | {r2('joint')} | .960 and .977 |",
        "| error of the final rise of L_f, forecast from the other ranks and the run's first 10, 25, 50 % | "
        + ", ".join(f"{sum(errors) / len(errors):.1%}" for errors in shares.values())
        + f" ({held} of {runs} inside 90 % intervals) | – |",
        *(
            f"| {name}, forecast from a run's own readings after 25, 50, 75 %: error over the run's change, "
            f"on sweeps that chose nothing | {own_readings(forecasts, measure)} | – |"
            for measure, name in (("l_ft", "final task loss"), ("l_f_rise", "final rise of L_f"), ("kl", "final KL"))
        ),
    ]
    return "\n".join(
        [
            *lines,
            "",
            "Raw rows and what was missed: [lab/forgetting_laws](../lab/forgetting_laws/README.md), [forecast.json]"
            "(../benchmarks/results/forecast.json).",
        ]
    )


def fill(readme: str, name: str, content: str) -> str:
    pattern = rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)"
    return re.sub(pattern, lambda match: f"{match[1]}{content}\n{match[2]}", readme, flags=re.DOTALL)


def photograph(page: Path, picture: Path, size: tuple[int, int] = (WIDTH, HEIGHT), *switches: str) -> None:
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                f"--user-data-dir={profile}", "--hide-scrollbars", "--virtual-time-budget=5000", *switches,
                f"--window-size={size[0]},{size[1]}", f"--screenshot={picture}", page.resolve().as_uri(),
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip


def update_audit() -> None:
    results = ROOT / "benchmarks" / "results"
    content = [json.loads((results / f"{name}.json").read_text()) for name in ("audit_plain", "audit_replay")]
    cost = json.loads((results / "bench_audit.json").read_text())
    RESULTS.write_text(fill(RESULTS.read_text(), "audit", audit_section(*content, cost)))


def update_laws() -> None:
    results = ROOT / "benchmarks" / "results"
    forecasts = json.loads((results / "forecast.json").read_text())
    with_law = json.loads((results / "forecast_law.json").read_text())["summary"]
    laws = json.loads((ROOT / "lab" / "forgetting_laws" / "laws.json").read_text())
    RESULTS.write_text(fill(RESULTS.read_text(), "laws", laws_section(laws, with_law, forecasts)))


def update_budgets() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "bench_budgets.py"), "--table"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    rows = "Raw rows: [bench_budgets.jsonl](../benchmarks/results/bench_budgets.jsonl)."
    RESULTS.write_text(fill(RESULTS.read_text(), "budgets", f"{told}\n\n{rows}"))


def update_demo() -> None:
    folders = [Path(name) for name in sys.argv[2:]]
    runs = [json.loads((folder / "summary.json").read_text()) for folder in folders]
    (ROOT / "benchmarks" / "results" / "demo.json").write_text(json.dumps(runs, indent=2, ensure_ascii=False) + "\n")
    readme = ROOT / "README.md"
    text = fill(readme.read_text(), "demo", demo_section(runs))
    RESULTS.write_text(fill(RESULTS.read_text(), "demo-table", demo_table(runs)))
    readme.write_text(fill(text, "cost", cost_section(runs[0])))
    photograph(folders[0] / "report.html", ROOT / "docs" / "demo.png")


if __name__ == "__main__":
    {"demo": update_demo, "audit": update_audit, "laws": update_laws, "budgets": update_budgets}[sys.argv[1]]()
