# /// script
# requires-python = ">=3.11"
# dependencies = ["keeptune"]
# ///
"""A job on Hugging Face's machines, or anywhere that uv runs: writes the replay text, tunes, audits.

    hf jobs uv run --flavor a100-large --secrets HF_TOKEN recipes/hf_jobs.py --model Qwen/Qwen3-0.6B \
        --data trl-lib/Capybara --push me/tuned
    uv run recipes/hf_jobs.py --model smollm2 --data verilog --steps 4 --tokens 2048      # on a CPU
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="smollm2")
parser.add_argument("--data", default="verilog")
parser.add_argument("--out", default="run")
parser.add_argument("--steps", default="500")
parser.add_argument("--tokens", default="98304", help="tokens of the replay pool")
parser.add_argument("--push", help="repository on the hub for the tuned model; needs HF_TOKEN")
arguments = parser.parse_args()


def keeptune(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "keeptune", *words], check=True)


pool = f"{arguments.out}-pool"
keeptune("replay", arguments.model, "--out", pool, "--tokens", arguments.tokens)
keeptune("tune", arguments.model, arguments.data, "--out", arguments.out, "--replay", pool, "--steps", arguments.steps)
if arguments.push:
    from huggingface_hub import HfApi

    HfApi().create_repo(arguments.push, exist_ok=True)
    HfApi().upload_folder(repo_id=arguments.push, folder_path=str(Path(arguments.out) / "model"))
