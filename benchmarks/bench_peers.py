"""keeptune's quick audit beside modeldiffr and finetunecheck, on one pair of models: docs/comparison.md.

    python benchmarks/bench_peers.py --work FOLDER                     # what is missing; about 20 minutes on two cores
    python benchmarks/bench_peers.py --work FOLDER --only statistics   # of modeldiffr's intervals alone; a minute

The pair is the base and the plain model of `keeptune demo --quick`; the null is that base against itself. Each tool
runs in an environment of its own, offline, in the smallest form that it calls quick. A result is kept as soon as it is
there, in benchmarks/results/bench_peers.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scipy import stats

from keeptune.storage import write_json
from keeptune.system import provenance

RESULT = Path(__file__).parent / "results" / "bench_peers.json"
PINS = {
    "modeldiffr": ["modeldiffr[hf]==0.9.3", "torch==2.13.0"],
    "finetunecheck": ["finetunecheck[inference]==2.0.2", "torch==2.13.0", "scipy"],
}
# `ftcheck quick` writes a page only; this is what it runs, with the JSON of its own exporter.
FTCHECK = """
import sys
from finetunecheck.config import QuickConfig
from finetunecheck.eval.runner import EvalRunner
from finetunecheck.report.exporters import JSONExporter
results = EvalRunner(QuickConfig(base_model=sys.argv[1], finetuned_model=sys.argv[2], device="cpu")).run()
JSONExporter.export(results, sys.argv[3])
"""
# Paired answers of two models of which neither is better: each pair that differs is lost or gained by a coin.
NULLS = """
import json, random, sys
from modeldiffr.stats import one_sample_bootstrap, paired_bootstrap
chance, alarms, held = random.Random(0), {}, {}
for discordant in (4, 6, 8, 12):
    said = 0
    for draw in range(400):
        pairs = [(1, 0) if chance.random() < 0.5 else (0, 1) for _ in range(discordant)] + [(1, 1)] * (24 - discordant)
        found = paired_bootstrap([float(b) for b, _ in pairs], [float(d) for _, d in pairs], n_resamples=400, seed=draw)
        said += found["significant"]
    alarms[discordant] = said
for draw in range(400):
    found = one_sample_bootstrap([chance.expovariate(1.0) for _ in range(12)], n_resamples=400, seed=draw)
    held[draw] = found["ci_low"] <= 1.0 <= found["ci_high"]
four = paired_bootstrap([1.0] * 24, [0.0] * 4 + [1.0] * 20, seed=0)
json.dump({"draws": 400, "alarms": alarms, "held": sum(held.values()), "four_lost": four}, sys.stdout)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=None, help="of models, statistics, keeptune, modeldiffr, ...")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    results: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    base, plain = work / "demo-quick" / "base", work / "demo-quick" / "plain" / "model"
    steps: dict[str, Callable[[], Any]] = {"statistics": lambda: statistics(work)}
    for what, tuned in (("pair", plain), ("null", base)):
        steps[f"keeptune, {what}"] = lambda tuned=tuned, what=what: keeptune(work, base, tuned, what)
        steps[f"modeldiffr, {what}"] = lambda tuned=tuned, what=what: modeldiffr(work, base, tuned, what)
        steps[f"finetunecheck, {what}"] = lambda tuned=tuned, what=what: finetunecheck(work, base, tuned, what)
    for name, step in steps.items():
        if name in results or (arguments.only is not None and name.partition(",")[0] not in arguments.only):
            continue
        if name != "statistics" and not plain.is_dir():
            run(work, [sys.executable, "-m", "keeptune", "demo", "--quick", "--out", str(work / "demo-quick")])
        results[name] = step()
        write_json(RESULT, {**results, **provenance(0)})
        print(name, json.dumps(results[name])[:300], flush=True)


def run(work: Path, command: list[str]) -> tuple[float, int, str]:
    """Seconds, exit code and the end of what a command says; offline, with a cache of its own."""
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HOME": str(work / "hub")}
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    begin = time.monotonic()
    done = subprocess.run(command, cwd=work, env={**plain, **offline}, capture_output=True, text=True, check=False)
    return time.monotonic() - begin, done.returncode, (done.stdout + done.stderr)[-2000:]


def python_of(work: Path, tool: str) -> str:
    """The interpreter of a tool's environment, which is made if it is not there."""
    python = work / f"env-{tool}" / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PINS[tool]], check=True)
    return str(python)


def keeptune(work: Path, base: Path, tuned: Path, what: str) -> dict[str, Any]:
    """Its findings that have a verdict."""
    out = work / f"keeptune-{what}"
    seconds, code, said = run(work, [sys.executable, "-m", "keeptune", "audit", *map(str, (base, tuned)), "--quick",
                                     "--out", str(out)])  # fmt: skip
    told = json.loads((out / "report.json").read_text())["findings"] if code == 0 else []
    kept = ("section", "subject", "part", "measure", "value", "low", "high", "n", "verdict", "p_together")
    findings = [{name: one.get(name) for name in kept} for one in told if one.get("verdict")]
    return {"seconds": round(seconds, 1), "code": code, "findings": findings, "said": "" if findings else said}


def modeldiffr(work: Path, base: Path, tuned: Path, what: str) -> dict[str, Any]:
    """Its metrics and its verdict."""
    out = work / f"modeldiffr-{what}"
    command = [python_of(work, "modeldiffr"), "-m", "modeldiffr", "audit", str(base), str(tuned), "--device", "cpu"]
    seconds, code, said = run(work, [*command, "--out", str(out)])
    report = json.loads((out / "report.json").read_text()) if (out / "report.json").is_file() else {}
    kept = ("name", "n", "base_mean", "derivative_mean", "delta", "ci_low", "ci_high", "p_value", "significant",
            "negligible")  # fmt: skip
    metrics = [{name: one.get(name) for name in kept} for one in report.get("metrics", [])]
    result = {"seconds": round(seconds, 1), "code": code, "metrics": metrics, "verdict": report.get("verdict")}
    return {**result, "notes": report.get("notes"), "said": "" if metrics else said}


def finetunecheck(work: Path, base: Path, tuned: Path, what: str) -> dict[str, Any]:
    """Its scores and its verdict."""
    out = work / f"finetunecheck-{what}.json"
    seconds, code, said = run(work, [python_of(work, "finetunecheck"), "-c", FTCHECK, *map(str, (base, tuned, out))])
    report = json.loads(out.read_text()) if out.is_file() else {}
    kept = ("verdict", "summary", "concerns", "roi_score", "roi_coverage", "base_scores", "ft_scores")
    result = {name: report.get(name) for name in kept}
    return {"seconds": round(seconds, 1), "code": code, **result, "said": "" if report else said}


def statistics(work: Path) -> dict[str, Any]:
    """How often modeldiffr's own intervals err: on 24 paired answers, and on a mean of 12 numbers as of a KL."""
    _, code, said = run(work, [python_of(work, "modeldiffr"), "-c", NULLS])
    if code != 0:
        raise RuntimeError(said)
    found = json.loads(said)
    found["four_lost"]["exact McNemar p"] = stats.binomtest(0, 4).pvalue
    return dict(found)


if __name__ == "__main__":
    main()
