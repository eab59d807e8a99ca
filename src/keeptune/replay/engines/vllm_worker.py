# /// script
# requires-python = ">=3.11"
# dependencies = ["vllm>=0.22"]
# ///
"""Writes rows of token ids with vLLM, in an environment of its own, which needs no keeptune.

    python vllm_worker.py SETTINGS      # a JSON object: `folder` of the replies, `llm`: arguments of vllm.LLM

Each line of standard input is a request: {"number", "openings": [[ids]], "length", "temperature", "seeds": [ints]}. Its
rows, int32 [rows, length], are written to `folder`/rows-NUMBER.npy. It ends when standard input ends, as it does when
the process that started it is killed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, TypedDict

import numpy as np


class Request(TypedDict):
    """A line of standard input."""

    number: int
    openings: list[list[int]]
    length: int
    temperature: float
    seeds: list[int]


def write(engine: Any, request: Request, folder: Path) -> None:
    """The rows of one request, ancestral samples of the model's own distribution."""
    from vllm import SamplingParams  # noqa: PLC0415 — takes long

    how = [
        SamplingParams(
            temperature=request["temperature"],
            top_p=1.0,
            top_k=0,
            ignore_eos=True,
            max_tokens=request["length"],
            seed=seed,
            detokenize=False,
        )
        for seed in request["seeds"]
    ]
    prompts = [{"prompt_token_ids": opening} for opening in request["openings"]]
    written = engine.generate(prompts, how, use_tqdm=False)
    rows = np.array([output.outputs[0].token_ids for output in written], dtype=np.int32)
    part = folder / f"rows-{request['number']}.part.npy"
    np.save(part, rows)
    part.rename(folder / f"rows-{request['number']}.npy")


def main() -> None:
    from vllm import LLM  # noqa: PLC0415 — takes long

    settings = json.loads(sys.argv[1])
    engine = LLM(**settings["llm"])
    folder = Path(settings["folder"])
    (folder / "ready").touch()
    for line in sys.stdin:
        write(engine, json.loads(line), folder)


if __name__ == "__main__":
    main()
