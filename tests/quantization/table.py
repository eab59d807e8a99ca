"""Every quantization that transformers knows, on a tiny model on a CPU: exact, or refused, and why.

    python -m tests.quantization.table [NAME ...]      # rows of the table; default all; `make quantization` calls it

Writes docs/quantization.json and docs/quantization.md.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
import warnings
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

from keeptune.errors import ConfigError, SourceError
from keeptune.models.loading import load_model
from keeptune.models.quantized import check_trainable
from tests.helpers.models import make_model, make_tokenizer
from tests.helpers.quantized import measured, measured_without_training
from tests.quantization.checkpoints import CHECKPOINTS

ROOT = Path(__file__).parents[2]
RESULT, PAGE = ROOT / "docs" / "quantization.json", ROOT / "docs" / "quantization.md"
PACKAGES = ("bitsandbytes", "torchao", "compressed-tensors", "gptqmodel", "optimum-quanto", "hqq")
_MERGED = 1e-4
_ALL = "replay, every teacher, training, audit"
# What transformers says of a checkpoint that holds plain weights under the name of the method.
_NO_CHECKPOINT = ("of its weights", "ignore_mismatched_sizes")
# Methods without a checkpoint of their own here.
_NOTES = {"gguf": "a .gguf file is converted once to plain weights, which are trained and audited"}
LIBRARIES = ("torch", "transformers", "peft", "trl", *PACKAGES)


def main() -> None:
    """Try the methods that are asked for, and write what came out."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    results = json.loads(RESULT.read_text(encoding="utf-8"))["methods"] if RESULT.is_file() else {}
    names = all_methods()
    for name in sys.argv[1:] or names:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = {"method": names[name], **verdict(name, names[name], Path(folder))}
        print(f"{name}: {results[name]['verdict']}: {results[name]['why']}", flush=True)
        write({name: results[name] for name in names if name in results})


def all_methods() -> dict[str, str]:
    """The rows: checkpoints that are made here, and every other method of transformers' registry."""
    made = {name: method for name, (method, _) in CHECKPOINTS.items()}
    return made | {method: method for method in sorted(set(AUTO_QUANTIZER_MAPPING) - set(made.values()))}


def verdict(name: str, method: str, folder: Path) -> dict[str, Any]:
    """Whether a method is exact here, and if not why."""
    plain, base = folder / "plain", folder / "base"
    make_model(tie=False, width=64).save_pretrained(plain)
    make_tokenizer().save_pretrained(plain)
    try:
        if name in CHECKPOINTS:
            CHECKPOINTS[name][1](plain, base)
        else:
            shutil.copytree(plain, base)
            config = json.loads((base / "config.json").read_text())
            config["quantization_config"] = {"quant_method": method}
            (base / "config.json").write_text(json.dumps(config))
    except Exception as error:  # the package that makes the checkpoint
        return {"verdict": "not made", "why": one_line(str(error), folder)}
    try:
        model = load_model(str(base))
    except SourceError as error:
        if name not in CHECKPOINTS and any(mark in error.what for mark in _NO_CHECKPOINT):
            return {"verdict": "not tried", "why": "no tiny checkpoint of it could be made here"}
        return {"verdict": "refused", "why": one_line(error.what.split("loaded here: ")[-1], folder)}
    if name not in CHECKPOINTS:
        why = _NOTES.get(name, "no tiny checkpoint of it could be made here; one that holds plain weights loads")
        return {"verdict": "not tried", "why": why}
    try:
        check_trainable(model, adapter=True)
    except ConfigError as error:
        result = measured_without_training(lambda: load_model(str(base)), folder)
        return {"verdict": judged(result), "why": f"replay and audit; training refused: {error.what}", **result}
    result = measured(lambda: load_model(str(base)), folder) | measured_without_training(
        lambda: load_model(str(base)), folder
    )
    refused = [str(value) for value in result.values() if str(value).startswith("refused")]
    why = f"replay, adapter and live teacher, training, audit; hidden teacher {refused[0]}" if refused else _ALL
    return {"verdict": judged(result), "why": why, **result}


def judged(result: dict[str, Any]) -> str:
    """`exact` if nothing differs: one fingerprint, and no gap in what training starts from, does, or saves."""
    gaps = {name: value for name, value in result.items() if isinstance(value, float) and "audit" not in name}
    # Merging an adapter into dequantized weights rounds in float32.
    bounds = [_MERGED if name == "saved against reloaded" else 0.0 for name in gaps]
    same = all(abs(gap) <= bound for gap, bound in zip(gaps.values(), bounds, strict=True))
    return "exact" if result["fingerprints"] == 1 and same else "differs"


def one_line(text: str, folder: Path) -> str:
    """The first line of an error, without the folder of this run."""
    return (text.strip().splitlines() or ["no message"])[0].replace(str(folder), "MODEL").strip()


def installed(name: str) -> str:
    """A package's version."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def write(methods: dict[str, Any]) -> None:
    """docs/quantization.json, and the table that people read."""
    versions = {name: installed(name) for name in LIBRARIES}
    content = {"date": datetime.now(UTC).date().isoformat(), "device": "cpu", "versions": versions, "methods": methods}
    RESULT.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = [
        "# Quantized bases",
        "",
        "Each quantization that transformers knows, tried on a tiny model on a CPU by `make quantization`. *Exact*: the"
        " fingerprint of the base is the same before and after a forward pass and after reloading; the first reading of"
        " drift is 0 with each teacher; λ = 0 reaches the weights of TRL's SFTTrainer bit for bit; the saved adapter"
        " gives the hidden states of the model in training (within 1e-4 where it is merged into dequantized weights)."
        " *Refused*: exit code 2 with these words. *Not made*: the package cannot write one here. Raw result:"
        " [quantization.json](quantization.json). A script: [recipes/qlora.py](../recipes/qlora.py).",
        "",
        "| quantization | verdict | why |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {row['verdict']} | {row['why'].replace('|', '/')} |" for name, row in methods.items()]
    lines += ["", f"{content['date']}, CPU; " + ", ".join(f"{name} {of}" for name, of in versions.items()) + "."]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
