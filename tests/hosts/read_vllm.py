"""Read the models of a folder with vLLM on a CPU, and print how far the log-probabilities of its prompts are off."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from vllm import LLM, SamplingParams
from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

if __name__ == "__main__":
    for folder in sorted(path for path in Path(sys.argv[1]).iterdir() if (path / "expected.json").is_file()):
        expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
        try:
            engine = LLM(str(folder), dtype="float32", enforce_eager=True, max_model_len=64, disable_log_stats=True)
            prompts = [{"prompt_token_ids": row} for row in expected["inputs"]]
            settings = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
            told = engine.generate(prompts, settings, use_tqdm=False)
            wanted = torch.tensor(expected["logits"]).log_softmax(-1)
            off = [
                abs(output.prompt_logprobs[place][token].logprob - wanted[row, place - 1, token].item())
                for row, output in enumerate(told)
                for place, token in enumerate(expected["inputs"][row])
                if place
            ]
            same = engine.get_tokenizer()(expected["probe"])["input_ids"] == expected["ids"]
            row = {"difference": max(off), "largest": wanted.abs().max().item(), "tokens": same}
            del engine
            cleanup_dist_env_and_memory()
        except Exception as error:
            row = {"error": f"{type(error).__name__}: {error}"[:200]}
        print(json.dumps({"family": folder.name, **row}), flush=True)
