"""DeepSpeed on a CPU (`make deepspeed-tests`): two processes against one, a resumed run, and the refusal of ZeRO-3.

    python -m tests.ranks.zero        # with a python that has deepspeed; writes docs/deepspeed.json; about five minutes

The bounds are set here: every weight of two processes within 1e-6 of one process's, of a resumed run that of the
uninterrupted one to the bit.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from keeptune.storage import write_json
from keeptune.system import provenance
from tests.helpers.forked import Forked
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.processes import weights, write_texts
from tests.helpers.ranks import KEEPTUNE, end, launch, succeed

ROOT = Path(__file__).parents[2]
RESULT, BOUND = ROOT / "docs" / "deepspeed.json", 1e-6
SETTINGS = ["--max-length", "32", "--replay-length", "16", "--replay-tokens", "640", "--drift-rows", "4", "--seed", "3"]
SETTINGS += ["--held-out-rows", "4", "--drift-every", "3", "--checkpoint-every", "3"]
STEPS = "9"


def run_file(folder: Path, stage: int) -> Path:
    """A run file in fp32; the recipe's configuration with this stage, which leaves out what fp32 has not."""
    zero = json.loads((ROOT / "recipes" / "zero2.json").read_text(encoding="utf-8"))
    zero["zero_optimization"]["stage"] = stage
    (folder / f"zero{stage}.json").write_text(json.dumps(zero))
    file = folder / f"zero{stage}.toml"
    file.write_text(f'[sft]\nbf16 = false\ndeepspeed = "{folder / f"zero{stage}.json"}"\n')
    return file


def farthest(one: Path, other: Path) -> float:
    """The largest difference of any weight."""
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys()
    return max(float((left[name].double() - right[name].double()).abs().max()) for name in left)


def prepare(folder: Path) -> list[str]:
    make_model(tie=False).save_pretrained(folder / "base")
    make_tokenizer().save_pretrained(folder / "base")
    (folder / "texts").mkdir()
    write_texts(folder / "texts")
    (folder / "plain.toml").write_text("[sft]\nbf16 = false\n")
    return [str(folder / "base"), str(folder / "texts"), *SETTINGS]


def check(folder: Path) -> dict[str, Any]:
    task = prepare(folder)
    alone = ["--config", str(folder / "plain.toml"), "--batch-size", "4", "--steps", STEPS]
    succeed(1, *KEEPTUNE, "tune", *task, *alone, "--out", folder / "alone")
    found: dict[str, Any] = {}
    for stage in (1, 2):
        shared = ["--config", str(run_file(folder, stage)), "--batch-size", "2"]
        out = folder / f"zero{stage}"
        succeed(2, *KEEPTUNE, "tune", *task, *shared, "--steps", STEPS, "--out", out)
        found[f"ZeRO-{stage}, two processes: largest difference of a weight"] = farthest(folder / "alone", out)
    resumed = folder / "resumed"
    stop(launch(2, *KEEPTUNE, "tune", *task, *shared, "--steps", STEPS, "--out", resumed), resumed)
    succeed(2, *KEEPTUNE, "tune", *task, *shared, "--steps", STEPS, "--out", resumed, "--resume")
    found["ZeRO-2, resumed: largest difference of a weight"] = farthest(folder / "zero2", resumed)
    command = (*KEEPTUNE, "tune", *task, "--config", run_file(folder, 3), "--steps", STEPS, "--out", folder / "three")
    ended = end(launch(2, *command))
    words = " ".join(ended[0][1].split())
    found["ZeRO-3: exit codes"] = [code for code, _ in ended]
    found["ZeRO-3: words"] = "gathers weights only inside its own engine" in words
    return found


def stop(processes: list[Forked], run: Path) -> None:
    """Kill all processes once there is a whole checkpoint."""
    deadline = time.monotonic() + 400
    while not list(run.glob("checkpoint-*/trainer_state.json")):
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes)
        time.sleep(0.01)
    for process in processes:
        process.kill()
    end(processes)
    assert not (run / "model").exists()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = check(Path(folder))
    good = all(value <= BOUND for name, value in found.items() if "two processes" in name)
    good = good and found["ZeRO-2, resumed: largest difference of a weight"] == 0.0
    good = good and found["ZeRO-3: exit codes"] == [2, 2] and found["ZeRO-3: words"]
    result = {"deepspeed": version("deepspeed"), "bound": BOUND, "passed": good, **found}
    write_json(RESULT, {**result, **provenance(3), "threads": torch.get_num_threads()})
    print(json.dumps(result, indent=1))
    sys.exit(not good)


if __name__ == "__main__":
    main()
