"""Read the models of a folder with this environment's transformers, and print how far each is from what it was."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if (path / "expected.json").is_file()):
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    try:
        # Gemma 2 caps the scores of its attention, which only the eager one does in both releases.
        eager = "eager" if folder.name == "gemma2" else None
        model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=eager).eval()
        with torch.no_grad():
            logits = model(input_ids=torch.tensor(expected["inputs"])).logits
        wanted = torch.tensor(expected["logits"])
        row = {
            "difference": (logits - wanted).abs().max().item(),
            "largest": wanted.abs().max().item(),
            "tokens": AutoTokenizer.from_pretrained(folder)(expected["probe"])["input_ids"] == expected["ids"],
        }
    except Exception as error:
        row = {"error": f"{type(error).__name__}: {error}"[:200]}
    print(json.dumps({"family": folder.name, **row}), flush=True)
