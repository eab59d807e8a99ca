"""Rows of vLLM and of the torch engine after the same prompts: are they samples of one distribution, and how fast.

Rows are independent, and tokens of one row are not. So the p of a chi-square comes from permuting rows between the two
engines, within each prompt, and the mean log-probability plus entropy is tested over rows.

Shapes: P prompts, R rows of one engine, T sampled tokens, C counted tokens, M permutations, V vocabulary.
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from scipy.stats import ttest_1samp
from torch import Tensor

from keeptune.models.loading import load_model, load_tokenizer
from keeptune.models.modeling import training_dtype
from keeptune.replay.engines.torch import TorchEngine
from keeptune.replay.engines.vllm import VLLMEngine

BASE, BOUND = "smollm2", 0.01
PROMPTS = (
    "The history of the city begins with",
    "In this paper we propose a new",
    "def read_file(path):\n    with",
    "She opened the door and saw that",
    "The three most important rules of cooking",
    "Water boils at a temperature of about",
    "Dear Sir, I am writing to",
    "According to the latest report, the",
)
ROWS, LENGTH, AT_ONCE = 56, 32, 64
COMMONEST = {"first": 8, "later": 60}
PERMUTATIONS = 9999
COLDER = 0.9
Counts = NDArray[np.float64]


def compare(python: str) -> dict[str, Any]:
    """Both engines in turns, so that what else runs on the machine slows both alike."""
    model, tokenizer = load_model(BASE).eval(), load_tokenizer(BASE)
    ids = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in PROMPTS]
    width = min(map(len, ids))
    openings = [prompt[:width] for prompt in ids for _ in range(ROWS)]
    dtype = training_dtype(model)
    engines = {
        "torch": TorchEngine(model, dtype=dtype, rows=AT_ONCE),
        "vllm": VLLMEngine(model, dtype=dtype, rows=AT_ONCE, python=python),
        "vllm, colder": VLLMEngine(model, dtype=dtype, rows=AT_ONCE, python=python, temperature=COLDER),
    }
    rows: dict[str, list[Tensor]] = {name: [] for name in engines}
    seconds = {name: np.zeros(2) for name in engines}
    starting = {}
    for name, engine in engines.items():
        since = clocks(engine)
        engine.sample(2, LENGTH, openings[:2], seed=0)
        starting[name] = (clocks(engine) - since)[1]
    for start in range(0, len(openings), AT_ONCE):
        some = openings[start : start + AT_ONCE]
        for name, engine in engines.items():
            since = clocks(engine)
            rows[name].append(engine.sample(len(some), LENGTH, some, seed=start + len(name)))
            seconds[name] += clocks(engine) - since
    sampled = {name: torch.cat(parts) for name, parts in rows.items()}
    count = len(openings) * LENGTH
    surplus = {name: surplus_of(model, tokens, LENGTH) for name, tokens in sampled.items()}
    return {
        "base": BASE,
        "dtype": str(dtype).removeprefix("torch."),
        "prompts": len(PROMPTS),
        "tokens": count,
        "p": tests(sampled["torch"], sampled["vllm"], surplus["torch"], surplus["vllm"], width),
        "p_control": tests(sampled["torch"], sampled["vllm, colder"], surplus["torch"], surplus["vllm, colder"], width),
        "log_probability_plus_entropy": {
            name: {"mean": float(values.mean()), "standard_error": float(values.std(ddof=1) / math.sqrt(len(values)))}
            for name, values in surplus.items()
        },
        "tokens_per_second": {name: round(count / seconds[name][0], 1) for name in ("torch", "vllm")},
        "tokens_per_cpu_second": {name: round(count / seconds[name][1], 1) for name in ("torch", "vllm")},
        "cpu_seconds_to_start": {name: round(starting[name], 1) for name in ("torch", "vllm")},
    }


def clocks(engine: TorchEngine | VLLMEngine) -> Counts:
    """Seconds of the wall, and of a processor in the process that samples; on a busy machine the latter are fairer."""
    process = getattr(engine, "_process", None)
    if process is None:
        own = 0.0 if isinstance(engine, VLLMEngine) else time.process_time()
        return np.array([time.monotonic(), own])
    spent = psutil.Process(process.pid).cpu_times()
    return np.array([time.monotonic(), spent.user + spent.system])


def passes(compared: dict[str, Any]) -> bool:
    """No test tells the engines apart, and the tests see a temperature of .9."""
    return min(compared["p"].values()) > BOUND > min(compared["p_control"].values())


def tests(left_RW: Tensor, right_RW: Tensor, left_R: Counts, right_R: Counts, width: int) -> dict[str, float]:
    """p of each test that two sets of rows are samples of the base: of each other, and of its entropy."""
    return {
        "first tokens, chi-square": chi_square(left_RW, right_RW, slice(width, width + 1), by_prompt=True),
        "later tokens, chi-square": chi_square(left_RW, right_RW, slice(width + 1, None), by_prompt=False),
        "mean log-probability = -entropy, torch": float(ttest_1samp(left_R, 0.0).pvalue),
        "mean log-probability = -entropy, vllm": float(ttest_1samp(right_R, 0.0).pvalue),
    }


def chi_square(left_RW: Tensor, right_RW: Tensor, part: slice, *, by_prompt: bool) -> float:
    """p of the chi-square of the commonest tokens, and all others as one, by permuting rows within each prompt."""
    both = np.concatenate([left_RW[:, part].numpy(), right_RW[:, part].numpy()])
    prompt = np.tile(np.arange(len(left_RW)) // ROWS, 2)
    kinds = [np.isin(prompt, [number]) for number in range(len(PROMPTS))] if by_prompt else [prompt >= 0]
    counted = np.concatenate([_counts(both, rows, "first" if by_prompt else "later") for rows in kinds], axis=1)
    generator = np.random.default_rng(0)
    swapped = np.array([generator.permuted(np.tile([1.0, -1.0], ROWS)) for _ in range(PERMUTATIONS * len(PROMPTS))])
    swapped = swapped.reshape(PERMUTATIONS, len(PROMPTS), 2, ROWS).swapaxes(1, 2).reshape(PERMUTATIONS, -1)
    observed = np.repeat([1.0, -1.0], len(left_RW))[None]
    total = counted.sum(axis=0)

    def statistic(sign: Counts) -> Counts:
        return ((sign @ counted) ** 2 / total).sum(axis=1)

    return float((1 + (statistic(swapped) >= statistic(observed) * (1 - 1e-12)).sum()) / (1 + PERMUTATIONS))


def _counts(both: NDArray[np.int64], rows: NDArray[np.bool_], kind: str) -> Counts:
    """How often each row has each of the commonest tokens, and the others: [2R, C]; no token in other rows."""
    commonest = np.argsort(-np.bincount(both[rows].ravel()))[: COMMONEST[kind]]
    own = np.stack([(both == token).sum(axis=1) for token in commonest], axis=1)
    counted = np.concatenate([own, both.shape[1] - own.sum(axis=1, keepdims=True)], axis=1) * rows[:, None]
    return counted[:, counted.sum(axis=0) > 0].astype(np.float64)


@torch.no_grad()
def surplus_of(model: Any, rows_RW: Tensor, sampled: int) -> Counts:
    """Mean over each row of log p(token) + entropy, in nats, by the full forward in fp32: 0 for samples of the base."""
    found = []
    for some in rows_RW.split(16):
        log_p = model(input_ids=some).logits[:, -sampled - 1 : -1].float().log_softmax(dim=-1)
        drawn = log_p.gather(2, some[:, -sampled:, None])[..., 0]
        found.append((drawn - (log_p.exp() * log_p).sum(dim=-1)).mean(dim=1))
    return torch.cat(found).double().numpy()
