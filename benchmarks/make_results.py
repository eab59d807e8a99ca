"""RESULTS.md from the raw JSON in results/: python benchmarks/make_results.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HEADLINES = {
    "bench_sample": ("speedup_vs_generate", "sampler against bf16 `generate`, batch 64, tokens a second", "≥ 2.5"),
    "bench_step": ("step_vs_plain", "a step with B task + B/2 replay rows against plain TRL SFT on as many", "≤ 1.05"),
    "bench_memory": ("extra_memory_vs_dense", "peak extra memory of the KL, 8k tokens, vocabulary 128k", "≤ 0.0625"),
    "bench_meter": ("meter_vs_two_forwards", "meter against two bare forward passes", "≤ 1.25"),
}
MORE = {
    "replay_term_vs_dense": ("the replay term alone against the dense live-teacher term", "≤ 0.75"),
    "replay_term_vs_trl_distillation": ("the replay term alone against TRL's DistillationTrainer", "≤ 0.80"),
    "plain_vs_trl": ("plain fine-tuning against TRL's own process", "≤ 1.0"),
}


def lines(result: dict[str, Any]) -> list[str]:
    key, words, bound = HEADLINES[result["benchmark"]]
    readings = {key: (words, bound), **MORE}
    source = f"[raw](results/{result['benchmark']}.json)"
    machine = (
        f"{result['machine']['accelerator'] or result['machine']['processor']}, {result['machine']['threads']} threads"
    )
    rounds = {"plain_vs_trl": len(result.get("seconds", {}).get("trl", []))}
    return [
        f"| {words} | {result[name]} | {bound} | {rounds.get(name, result.get('rounds', 1))} | {machine} | {source} |"
        for name, (words, bound) in readings.items()
        if name in result
    ]


def main() -> None:
    results = [json.loads(path.read_text()) for path in sorted((HERE / "results").glob("bench_*.json"))]
    table = [line for result in results for line in lines(result)]
    header = [
        "# Benchmark results",
        "",
        "Medians over rounds of the ratio within a round; commit, versions and every reading stand in the raw files.",
        "Made by `python benchmarks/make_results.py`.",
        "",
        "| what | measured | aim | rounds | machine | |",
        "|---|---|---|---|---|---|",
    ]
    (HERE / "RESULTS.md").write_text("\n".join([*header, *table]) + "\n")


if __name__ == "__main__":
    main()
