"""What every benchmark does first and last: choose the device, print one line of JSON, write the raw result."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def use_device(asked: str | None) -> str:
    """The device that was asked for, or the GPU where there is one; with `cpu`, torch sees no GPU."""
    if asked == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch

    if asked == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU that torch can use: run with --device cpu")
    return "cuda" if torch.cuda.is_available() else "cpu"


def instructions() -> str:
    """The widest instructions that this processor has for bfloat16 products: ratios differ by them most."""
    import torch

    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    return "avx512_bf16, no AMX" if torch.cpu._is_avx512_bf16_supported() else "no bfloat16 instructions"


def processor(result: dict[str, Any]) -> str:
    """The accelerator or the processor of a result, as part of a file's name."""
    machine = result["machine"]
    return re.sub(r"[^a-z0-9]+", "_", str(machine["accelerator"] or machine["processor"]).lower()).strip("_")


def finish(name: str, result: dict[str, Any], *, quick: bool) -> None:
    """Print the result on one line; in full mode write it to results/, each processor and each GPU to its own file."""
    import torch

    from keeptune.system import provenance

    device = "cuda" if torch.cuda.is_available() else "cpu"
    whole = {"benchmark": name, "device": device, **result, **provenance(0)}
    whole["instructions"] = instructions()
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        # A list of numbers on one line: a table reads, and diffs, by its rows.
        text = re.sub(r"\[[^\[\]{}]*\]", lambda found: " ".join(found[0].split()), json.dumps(whole, indent=2))
        file = RESULTS / f"{name}{'_cuda' if device == 'cuda' else ''}.json"
        if file.exists() and processor(json.loads(file.read_text())) != processor(whole):
            file = file.with_stem(f"{file.stem}_{processor(whole)}")
        file.write_text(text + "\n")
    print(json.dumps(whole))
