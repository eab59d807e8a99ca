"""Put the demo's numbers and picture into README.md.

    make demo && python docs/update_readme.py

Copies demo/summary.json to benchmarks/results/demo.json, rewrites what stands between the README's markers from it,
and photographs the top of demo/report.html with headless Chromium into docs/demo.png.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT = 1180, 1420


def with_interval(interval: dict[str, Any]) -> str:
    return f"{interval['value']:.2f}× [{interval['low']:.2f}, {interval['high']:.2f}]"


def demo_section(summary: dict[str, Any]) -> str:
    loss, steps = summary["task_loss"], summary["steps"]
    matched, equal = summary["drift_ratio_matched_steps"], summary["drift_ratio_equal_loss"]
    text = next(name for name in equal if name != "self")
    less = 1 - equal["self"]["value"]
    return f"""A 135 M-parameter chat model learns Verilog. With self-generated replay it reaches a held-out task loss of
{loss["replay"]:.3f} nats per token (plain fine-tuning {loss["plain"]:.3f}, base {loss["base"]:.3f}) and forgets **{less:.0%} less**.

![Task loss and forgetting of both runs](docs/demo.png)

| drift of the replay run, as a part of the plain run's | on the base's own text | on English text (`{text}`) |
|---|---|---|
| after the same {steps["plain"]} steps | {with_interval(matched["self"])} | {with_interval(matched[text])} |
| at equal task loss (replay takes {steps["replay"]} steps) | {with_interval(equal["self"])} | {with_interval(equal[text])} |

Drift is KL(base‖tuned); 95 % intervals over {equal["self"]["documents"]} and {equal[text]["documents"]} documents, one training run a method;
raw numbers in [benchmarks/results/demo.json](benchmarks/results/demo.json)."""


def cost_section(summary: dict[str, Any]) -> str:
    minutes, machine = summary["minutes_by_stage"], summary["machine"]
    return f"""Of the demo's {summary["minutes"]:.0f} minutes on {machine["threads"]} cores ({machine["processor"]}, no GPU),
{minutes["train plain"]:.1f} went into the plain run of {summary["steps"]["plain"]} steps, {minutes["replay"]:.1f} into writing the replay text,
{minutes["train replay"]:.1f} into the replay run of {summary["steps"]["replay"]} steps with half as many replay rows as task rows, and
{minutes["measure"]:.1f} into measuring."""


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


def main() -> None:
    summary = json.loads((ROOT / "demo" / "summary.json").read_text())
    results = ROOT / "benchmarks" / "results" / "demo.json"
    results.parent.mkdir(exist_ok=True)
    results.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    readme = ROOT / "README.md"
    text = fill(readme.read_text(), "demo", demo_section(summary))
    readme.write_text(fill(text, "cost", cost_section(summary)))
    photograph(ROOT / "demo" / "report.html", ROOT / "docs" / "demo.png")


if __name__ == "__main__":
    main()
