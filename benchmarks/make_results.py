"""RESULTS.md from the raw JSON in results/: python benchmarks/make_results.py"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import bench_plan

HERE = Path(__file__).parent
SAMPLER = "≥ 4 with AMX, ≥ 3.5 without"
# (benchmark, key) -> what it says, and the aim
ASKED = {
    ("bench_step", "step_vs_plain"): (
        "a step with B task + B/2 replay rows against plain TRL SFT on as many",
        "≤ 0.70",
    ),
    ("bench_step_2", "step_vs_plain"): ("the same with 2 task + 1 replay rows", "≤ 0.90"),
    ("bench_step", "replay_term_vs_dense"): ("the replay term alone against the dense live-teacher term", "≤ 0.75"),
    ("bench_step", "replay_term_vs_trl_distillation"): ("the replay term alone against TRL's distillation", "≤ 0.80"),
    ("bench_memory", "extra_memory_vs_dense"): ("peak extra memory of the KL, 8k tokens, vocabulary 128k", "≤ 0.03125"),
    ("bench_sample", "speedup_vs_generate"): ("sampler against bf16 `generate`, batch 64, tokens a second", SAMPLER),
    ("bench_sample_128", "speedup_vs_generate"): ("the same at batch 128", SAMPLER),
    ("bench_meter", "meter_vs_two_forwards"): ("meter against two bare forward passes", "≤ 1.10"),
    ("bench_step", "plain_vs_trl"): ("plain fine-tuning against TRL's own process", "≤ 1.0"),
}
BESIDE = {
    ("bench_step", "replay_term_vs_dense_same_attention"): "the replay term against the dense one with our attention",
    ("bench_step", "topk_vs_dense"): "the replay term with a topk teacher (64 words) against the dense one",
    ("bench_step", "live_vs_dense"): "the replay term with a live copy against the dense one",
    ("bench_step", "compiled_vs_blocks"): "the replay term with its blocks compiled against without (CPU)",
    ("bench_step", "lora_adapter_off_vs_hidden"): "on a LoRA: the adapter-off teacher against cached hidden states",
    ("bench_sample", "speedup_vs_generate_tuned_allocator"): "sampler against `generate` with our allocator settings",
}


# Of results that do not say it themselves: what the processors have for bfloat16 products.
INSTRUCTIONS = {"Intel(R) Xeon(R) Processor": "AMX"}


def place(result: dict[str, Any]) -> str:
    """The processor with its instructions for bfloat16 products and the threads, or the accelerator."""
    machine = result["machine"]
    name = machine.get("accelerator")
    if name:
        return str(name)
    processor = str(machine["processor"])
    has = result.get("instructions") or INSTRUCTIONS.get(processor)
    return f"{processor}{f' ({has})' if has else ''}, {machine['threads']} threads"


def met(value: float, bound: str, amx: bool) -> str:
    sign, limit = bound.split(", ")[0 if amx else -1].split()[:2]
    return "yes" if (value <= float(limit) if sign == "≤" else value >= float(limit)) else "**no**"


def line(result: dict[str, Any], name: str, words: str, bound: str | None) -> str:
    spread = result.get(f"{name}_range")
    shown = f"{result[name]}" + (f" [{spread[0]}, {spread[1]}]" if spread else "")
    rounds = len(result.get("seconds", {}).get("trl", [])) if name == "plain_vs_trl" else result.get("rounds", 1)
    asked = f"{bound} | {met(result[name], bound, '(AMX)' in place(result))}" if bound else "— | —"
    return f"| {words} | {shown} | {asked} | {rounds} | {place(result)} | [raw](results/{result['file']}) |"


def ratios(results: list[dict[str, Any]]) -> Iterator[str]:
    wanted = [(key, words, bound) for key, (words, bound) in ASKED.items()]
    for (benchmark, name), words, bound in [*wanted, *((key, words, None) for key, words in BESIDE.items())]:
        for result in results:
            if result["benchmark"] == benchmark and name in result:
                yield line(result, name, words, bound)


def table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    header = list(header)
    cells = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *cells]


def memory(results: list[dict[str, Any]]) -> list[str]:
    found = [result for result in results if result["benchmark"] == "bench_memory"]
    if not found:
        return []
    rows = [
        (place(result), f"{at['vocabulary']:,}", f"{at['tokens']:,}", f"{at['fused_MiB']:,.0f}",
         f"{at['dense_MiB']:,.0f}", at["ratio"])
        for result in found for at in result["grid"]
    ]  # fmt: skip
    text = (
        "What the fused form takes grows with the tokens only by the gradient at their hidden states, which is its"
        f" result (width {found[0]['width']}); the gradient of the head comes on top of its chunks too."
    )
    head = ("machine", "vocabulary", "tokens", "fused, MiB", "dense, MiB", "ratio")
    return ["", "## Memory of the KL, forward and backward", "", text, "", *table(head, rows)]


def quickly() -> list[str]:
    """The same ratios by --quick, on the processor that the full runs were not made on."""
    path = HERE / "results" / "quick_before_after.json"
    if not path.is_file():
        return []
    result = json.loads(path.read_text())
    text = f"`--quick` of the same benchmarks on {place(result)}, medians of {{}} runs. [raw](results/{path.name})"
    rows = [
        (name.replace("_", " "), statistics.median(runs["after"]), f"[{min(runs['after'])}, {max(runs['after'])}]")
        for name, runs in result["runs"].items()
    ]
    counts = sorted({len(runs["after"]) for runs in result["runs"].values()})
    head = ["", "## On another processor, quickly", "", text.format(" or ".join(map(str, counts))), ""]
    return [*head, *table(("what", "median", "range"), rows)]


def rooflines() -> list[str]:
    """How near each part comes to the limit of each processor at hand, and where the rest goes."""
    lines: list[str] = []
    for path in sorted((HERE / "results").glob("roofline*.json")):
        result = json.loads(path.read_text())
        limits = result["limits"]
        text = (
            f"Limits: {limits['fp32_gflops']:,.0f} GFLOP/s in fp32, {limits['bf16_gflops']:,.0f} in bfloat16,"
            f" {limits['bandwidth_gb']:.1f} GB/s. Model: {result['model']}. The limit of a whole is the sum over its"
            f" parts of the larger of operations and bytes over these rates. [raw](results/{path.name}), with each"
            " part and the operators by name."
        )
        rows = [
            (at["what"], at["size"], f"{at['gflop']:,.0f}", f"{at['gigabytes']:.2f}", f"{at['least_ms']:,.0f}",
             f"{at['ms']:,.0f} [{at['ms_range'][0]:,.0f}, {at['ms_range'][1]:,.0f}]", f"{at['share']:.0%}",
             ", ".join(f"{kind} {share:.0%}" for kind, share in at["profile"]["shares"].items() if share >= 0.03))
            for at in result["wholes"]
        ]  # fmt: skip
        head = (
            "what",
            "size",
            "GFLOP",
            "GB",
            "limit, ms",
            f"measured, ms, {result['rounds']} rounds",
            "share",
            "time in",
        )
        lines += ["", f"## Close to the limit: {place(result)}", "", text, "", *table(head, rows)]
    return lines


def top_k(results: list[dict[str, Any]]) -> list[str]:
    found = [result for result in results if result["benchmark"] == "bench_topk"]
    if not found:
        return []
    text = (
        f"SmolLM2 tuned plainly on Verilog, read on {found[0]['rows']} rows of its base's own text"
        f" ({found[0]['length']} tokens each). The topk teacher sees the base's K likeliest words and the mass of the"
        " rest: its KL is at most the whole one. A kept token costs 6·K + 2 bytes;"
        f" hidden states cost {2 * found[0]['width']} here."
    )
    head = ("steps", "K", "bytes a token", "KL seen", "gradient, cosine", "gradient, length")
    rows = [
        (at["steps"], at["words"], 6 * at["words"] + 2, f"{at['kl_ratio']:.0%} of {at['exact_kl']:.3f} nats",
         at["gradient_cosine"], at["gradient_length_ratio"])
        for result in found for at in result["readings"]
    ]  # fmt: skip
    return ["", "## What a topk teacher cannot see", "", text, "", *table(head, rows)]


def coverage(results: list[dict[str, Any]]) -> list[str]:
    found = [result for result in results if result["benchmark"] == "bench_coverage"]
    if not found:
        return []
    result, cells = found[0], found[0]["cells"]
    numbers = sorted({cell["documents"] for cell in cells})
    by_kind = {cell["kind"]: {} for cell in cells}
    for cell in cells:
        by_kind[cell["kind"]][cell["documents"]] = cell
    worst, fewest = result["worst"], result["least_documents"]
    wrong = ", ".join(f"{kind}, {number}: {share:g}" for kind, number, share in result["false_beyond_bound"]) or "none"
    text = (
        f"How often the 95 % interval of a mean per token holds the truth, in {cells[0]['replications']} draws of"
        f" documents (sd {result['sd_of_coverage']}). Bound, set before the run: {result['bound']} for {fewest} or more"
        f" documents, of every kind but the last two; the least is {worst['covered']} ({worst['kind']},"
        f" {worst['documents']} documents). In brackets the percentile interval that keeptune had before."
        f" Of true hypotheses at most {result['false_bound']:g} may have a p below .05/20: beyond that: {wrong}."
        " [raw](results/bench_coverage.json), with BCa, Student's t, widths, p-values and intervals of shares."
    )
    rows = [
        (kind, *(f"{of[number]['covered']:.3f} ({of[number]['percentile']:.3f})" for number in numbers))
        for kind, of in by_kind.items()
    ]
    return ["", "## What intervals cover", "", text, "", *table(("documents", *map(str, numbers)), rows)]


def plans() -> list[str]:
    path = HERE / "results" / "bench_plan.json"
    if not path.is_file():
        return []
    result = json.loads(path.read_text())
    counts = (f"{name} {at['count']} of {at['of']} (bound {at['bound']})" for name, at in result["bounds"].items())
    text = (
        "Cases planned with `keeptune plan` and run with its command ([raw](results/bench_plan.json)), 90 % intervals."
        f" {'; '.join(counts)}."
    )
    return ["", "## Plans and what came of them", "", text, "", *bench_plan.table(result["rows"])]


def profiles() -> list[str]:
    lines: list[str] = []
    for path in sorted((HERE / "results").glob("profile_*.json")):
        profile = json.loads(path.read_text())
        lines += ["", f"## Profile: {profile['what']}", "", f"[raw](results/{path.name})", ""]
        lines += table(
            ("operation", "share", "ms"), ((at["name"], f"{at['share']:.1%}", at["ms"]) for at in profile["top"])
        )
    return lines


def main() -> None:
    files = sorted((HERE / "results").glob("bench_*.json"))
    results = [{**json.loads(path.read_text()), "file": path.name} for path in files]
    header = [
        "# Benchmark results",
        "",
        "Medians over rounds of the ratio within a round, [smallest, largest]; commit, versions and every reading",
        "stand in the raw files. Made by `python benchmarks/make_results.py`. In `bench_step`, keeptune's model is set",
        "up as `keeptune tune` does it: on a CPU, rows of up to 256 tokens attend through plain matrix products.",
        "",
        "| what | measured | aim | met | rounds | machine | |",
        "|---|---|---|---|---|---|---|",
    ]
    text = [
        *header,
        *ratios(results),
        *quickly(),
        *rooflines(),
        *memory(results),
        *top_k(results),
        *coverage(results),
        *plans(),
        *profiles(),
    ]
    (HERE / "RESULTS.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
