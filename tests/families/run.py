"""Walk all families and write the table: `make families`; ARGS="--only mamba" for some, "--fresh" to start anew.

Each family runs in a process of its own, forked after the imports. A finished one is kept in build/families, so that
an interrupted run goes on there. `docs/families.json` and `docs/families.md` are written when all are done.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from keeptune.storage import write_json, write_text
from keeptune.system import versions
from tests.families.catalog import FAMILIES
from tests.families.harness import LARGEST_KL, LARGEST_Z, STAGES, Walk, walk

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build/families"
TABLE, PAGE = ROOT / "docs/families.json", ROOT / "docs/families.md"
SECONDS = 300


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="walk the families whose names contain one of these")
    parser.add_argument("--fresh", action="store_true", help="walk those again that are finished")
    parser.add_argument("--kept", type=Path, default=KEPT, help="where finished walks are kept")
    options = parser.parse_args()
    names = [name for name in FAMILIES if not options.only or any(part in name for part in options.only)]
    options.kept.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    # Trainers and audits collect garbage often: what the imports made is never any.
    gc.freeze()
    left = [name for name in names if options.fresh or not kept_file(options.kept, name).is_file()]
    began = time.monotonic()
    for count, name in enumerate(left):
        result = apart(name, options.kept)
        seconds = time.monotonic() - began
        minutes_left = seconds / (count + 1) * (len(left) - count - 1) / 60
        reason = f": {result['reason']}" if result["reason"] else ""
        print(f"{count + 1}/{len(left)}, {minutes_left:.0f} min left  {name}: {result['verdict']}{reason}", flush=True)
    walks = [json.loads(kept_file(options.kept, name).read_text()) for name in names]
    if not options.only and options.kept == KEPT:
        write_json(TABLE, {"versions": versions(), "families": walks})
        write_text(PAGE, page(walks))
    return int(any(result["verdict"] == "failed" for result in walks))


def kept_file(folder: Path, name: str) -> Path:
    return folder / f"{re.sub(r'[^a-z0-9]+', '-', name)}.json"


def apart(name: str, kept: Path) -> dict[str, Any]:
    """Walk one family in a process of its own; one that dies or takes too long has failed."""
    file = kept_file(kept, name)
    file.unlink(missing_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="families-"))
    process = multiprocessing.get_context("fork").Process(target=_walk, args=(name, folder, file))
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
    shutil.rmtree(folder, ignore_errors=True)
    if not file.is_file():
        died = Walk(name, FAMILIES[name].group, "failed", f"the process ended with {process.exitcode}")
        write_json(file, asdict(died))
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def _walk(name: str, folder: Path, file: Path) -> None:
    log = file.with_suffix(".log").open("w")
    sys.stdout = sys.stderr = log
    try:
        write_json(file, asdict(walk(FAMILIES[name], folder)))
    except BaseException:
        traceback.print_exc()
        raise


def page(walks: list[dict[str, Any]]) -> str:
    """The table for people."""
    counts = Counter(walk["verdict"] for walk in walks)
    lines = [
        "# Families of models",
        "",
        f"{len(walks)} tiny configurations with random weights, one or more of each architecture, walked as a user "
        f"would: {counts['exact']} exact, {counts['refused']} refused in words, {counts['failed']} failed.",
        "",
        "`make families` makes this table; `make test` walks a part that changes from day to day. Exact means:",
        "",
        "- *replay*: the base writes a pool in fp32, and its sampled tokens have the log-probability that the full"
        f" forward pass expects, |z| < {LARGEST_Z:g}.",
        "- *full*: with λ = 0 every tensor is that of TRL's `SFTTrainer` bit for bit; with λ = 1 the KL of step 0 is "
        f"below {LARGEST_KL:g} nats per token; the saved model, loaded again, has the logits of the trained one.",
        "- *LoRA*: `keeptune tune --lora`, the same KL, and the saved adapter has the logits of the trained one.",
        "- *audit*: the tuned model against its base, with the drift of each layer and with continuations.",
        "",
        "| family | group | replay | full | LoRA | audit | z | why it is refused, or what TRL cannot do |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kept in walks:
        stages = " | ".join(kept["stages"].get(stage, "") for stage in STAGES)
        z = f"{kept['numbers']['z']:.1f}" if "z" in kept["numbers"] else ""
        reason = (kept["reason"] or (kept["trl"] and f"TRL: {kept['trl']}")).replace("|", "\\|")
        lines.append(f"| {kept['name']} | {kept['group']} | {stages} | {z} | {reason} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
