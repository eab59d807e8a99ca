"""Laws fitted to readings drawn from a known law: error and coverage of predictions, and seconds.

    python benchmarks/bench_laws.py --quick      # prints one JSON line last
    python benchmarks/bench_laws.py              # writes results/laws_synthetic.json

Readings lie as in 2401.05605: ranks 8 … 256, here with three seeds each, every 10 steps from 50 to 260. Each is the
published law times 1 + 2 % noise; in `runs_differ` every run is moved by another 1 %. 90 % intervals are counted that
hold the law's own value, at the corners and the middle of the readings and at two places beyond them.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from shared import finish

SCENARIOS = {
    "openorca": ("llama2-7b-chat/openorca", 0.0),
    "news": ("llama2-7b-chat/news", 0.0),
    "runs_differ": ("llama2-7b-chat/openorca", 0.01),
}
RANKS = (8, 16, 32, 64, 128, 256)
# (rank, steps)
INSIDE = ((8, 50), (8, 260), (256, 50), (256, 260), (45, 150))
BEYOND = ((512, 400), (8, 520))
LOSSES = ("L_ft", "L_f")
REPLICATES = 100


def drawn(name: str, apart: float, seed: int, seeds: int = 3, steps: int = 22) -> Any:
    import numpy as np

    from keeptune.laws.forms import LLAMA_2_7B_PARAMETERS_PER_RANK, PUBLISHED
    from keeptune.laws.readings import Runs

    generator = np.random.default_rng(seed)
    run, N = (axis.ravel() for axis in np.meshgrid(range(len(RANKS) * seeds), np.linspace(50, 260, steps)))
    P = np.array(RANKS)[run // seeds] * float(LLAMA_2_7B_PARAMETERS_PER_RANK)
    noisy = [
        loss * (1 + 0.02 * generator.standard_normal(len(P)) + apart * generator.standard_normal(run.max() + 1)[run])
        for loss in PUBLISHED[name].predict(P=P, N=N)
    ]
    return Runs(P=P, N=N, L_ft=noisy[0], L_f=noisy[1], run=run)


def one(task: tuple[str, int]) -> dict[str, Any]:
    """One fit: for each place and loss the relative error, and whether the interval holds the truth."""
    import numpy as np

    from keeptune.laws.forms import LLAMA_2_7B_PARAMETERS_PER_RANK, PUBLISHED
    from keeptune.laws.joint.fit import JointFit

    scenario, seed = task
    name, apart = SCENARIOS[scenario]
    start = time.perf_counter()
    fit = JointFit(bootstraps=REPLICATES, seed=seed).fit(drawn(name, apart, seed))
    seconds = time.perf_counter() - start
    ranks, N = np.array([*INSIDE, *BEYOND], dtype=float).T
    P = ranks * LLAMA_2_7B_PARAMETERS_PER_RANK
    truth, said = PUBLISHED[name].predict(P=P, N=N), fit.predict(P=P, N=N, interval=0.9)
    found: dict[str, Any] = {"seed": seed, "seconds": round(seconds, 3), "weak": fit.weak_}
    for loss, value, band in zip(LOSSES, truth, said, strict=True):
        found[f"{loss}_error"] = np.abs(band.value / value - 1).round(6).tolist()
        found[f"{loss}_width"] = (band.high - band.low).round(5).tolist()
        found[f"{loss}_held"] = ((band.low <= value) & (value <= band.high)).tolist()
    return found


def summary(fits: list[dict[str, Any]]) -> dict[str, Any]:
    from statistics import median

    inside = len(INSIDE)
    whole: dict[str, Any] = {"fits": len(fits), "median_seconds": median(fit["seconds"] for fit in fits)}
    for loss in LOSSES:
        errors = [fit[f"{loss}_error"] for fit in fits]
        whole[f"{loss}_median_error_inside"] = median(error for row in errors for error in row[:inside])
        whole[f"{loss}_median_error_beyond"] = median(error for row in errors for error in row[inside:])
        held = [sum(column) for column in zip(*(fit[f"{loss}_held"] for fit in fits), strict=True)]
        whole[f"{loss}_held_inside"], whole[f"{loss}_held_beyond"] = held[:inside], held[inside:]
    return whole


def timed() -> dict[str, Any]:
    """Seconds for 10 020 readings, without and with 200 replicates."""
    from keeptune.laws.joint.fit import JointFit

    readings = drawn("llama2-7b-chat/openorca", 0.0, 0, seeds=10, steps=167)
    seconds = {}
    for bootstraps in (0, 200):
        start = time.perf_counter()
        JointFit(bootstraps=bootstraps).fit(readings)
        seconds[f"seconds_{bootstraps}_replicates"] = round(time.perf_counter() - start, 2)
    return {"readings": len(readings), **seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three seeds, nothing written")
    quick = parser.parse_args().quick
    tasks = [(scenario, seed) for scenario in SCENARIOS for seed in range(3 if quick else 100)]
    large = timed()
    with ProcessPoolExecutor(max_workers=2) as pool:
        fits = list(pool.map(one, tasks))
    by_scenario = {
        scenario: [fit for task, fit in zip(tasks, fits, strict=True) if task[0] == scenario] for scenario in SCENARIOS
    }
    result = {
        "places": {"inside": INSIDE, "beyond": BEYOND},
        "replicates": REPLICATES,
        "large": large,
        "summary": {scenario: summary(of) for scenario, of in by_scenario.items()},
        "fits": {} if quick else by_scenario,
    }
    finish("laws_synthetic", result, quick=quick)


if __name__ == "__main__":
    main()
