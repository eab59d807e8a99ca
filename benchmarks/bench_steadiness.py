"""How far a small change of the weights moves the prediction after an opening, by kind of opening, on SmolLM2.

    python benchmarks/bench_steadiness.py            # a minute or two; writes results/bench_steadiness.json
    python benchmarks/bench_steadiness.py --quick    # few openings, one draw; prints one JSON line last

A separator after a short text becomes a second attention sink, after a few texts by a hair. Then a few steps of
training move the next prediction by nats, whatever λ is, and a pool of such rows cannot keep a small budget. The change
here is random: each weight by 2 % of itself. The rule leaves such texts out by another one, noise in layers' outputs.
"""

from __future__ import annotations

import argparse
from typing import Any

from shared import finish, use_device

SEED, LENGTH = 0, 32
DRAWS, CHANGE = 3, 0.02
"""Draws of a change of the weights, and its size as a share of each weight."""


def openings_by_kind(model: Any, tokenizer: Any, start: int, count: int) -> dict[str, list[list[int]]]:
    """So many openings of each kind, from texts of the base's own."""
    import torch

    from keeptune.replay.openings.probe import Prober

    prober, newline = Prober(model, tokenizer, SEED), tokenizer("\n", add_special_tokens=False)["input_ids"]
    texts = {n: prober.sample(torch.full((count, 1), start), n)[:, 1:].tolist() for n in (4, 12)}
    return {
        "newline, 4 tokens, separator": [[*newline, *text, start] for text in texts[4]],
        "newline, 12 tokens, separator": [[*newline, *text, start] for text in texts[12]],
        "separator, 12 tokens, separator": [[start, *text, start] for text in texts[12]],
        "newline, 12 tokens": [[*newline, *text] for text in texts[12]],
    }


def steadiness(model: Any, kinds: dict[str, list[list[int]]], draws: int) -> dict[str, Any]:
    """KL(base‖changed) of the next token after openings, in float32: mean over draws and openings, 90 %, largest."""
    import torch

    weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    @torch.inference_mode()
    def predicted() -> dict[str, Any]:
        rows = {kind: torch.tensor(openings, device=model.device) for kind, openings in kinds.items()}
        return {kind: model(input_ids=ids).logits[:, -1].log_softmax(-1).cpu() for kind, ids in rows.items()}

    before, moved = predicted(), {kind: [] for kind in kinds}
    for draw in range(draws):
        generator = torch.Generator().manual_seed(draw)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                noise = torch.randn(weight.shape, generator=generator).to(weight.device)
                weight.copy_(weights[name] * (1 + CHANGE * noise))
        for kind, log_q in predicted().items():
            moved[kind].append((before[kind].exp() * (before[kind] - log_q)).sum(-1))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(weights[name])
    of_kind = {kind: torch.stack(kls) for kind, kls in moved.items()}
    return {
        kind: {
            "openings": kls.shape[1],
            "mean": kls.mean().item(),
            "of_the_worst_draw": [round(kl, 4) for kl in kls.amax(0).tolist()],
            "ninety_percent_below": kls.amax(0).quantile(0.9).item(),
            "largest": kls.max().item(),
        }
        for kind, kls in of_kind.items()
    }


def main() -> None:
    """Measure, and write the raw result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few openings, nothing written")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: the GPU where there is one")
    arguments = parser.parse_args()
    device = use_device(arguments.device)

    from keeptune.models.loading import load_model, load_tokenizer
    from keeptune.replay.openings import find_openings

    tokenizer, model = load_tokenizer("smollm2"), load_model("smollm2").float().to(device)
    settings = find_openings(model, tokenizer, length=LENGTH, seed=SEED).settings
    kinds = openings_by_kind(model, tokenizer, settings["start_token"], 8 if arguments.quick else 64)
    kinds["as chosen by the rule"] = settings["openings"][: 8 if arguments.quick else None]
    result = {
        "model": "smollm2",
        "change": CHANGE,
        "draws": 1 if arguments.quick else DRAWS,
        "chosen": settings["opening"],
        "kl_of_the_next_token": steadiness(model, kinds, 1 if arguments.quick else DRAWS),
    }
    finish("bench_steadiness", result, quick=arguments.quick)


if __name__ == "__main__":
    main()
