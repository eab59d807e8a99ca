"""How rows open, on a real base: the rule's choice, the noise floor of own text, first tokens, windows of text.

    python benchmarks/bench_openings.py --quick            # a few rows, prints one JSON line last
    python benchmarks/bench_openings.py                    # SmolLM2; writes results/bench_openings_smollm2.json
    python benchmarks/bench_openings.py --model BASE.gguf --name gemma3_270m
    python benchmarks/bench_openings.py --tables           # the tables of docs/openings.md from the raw results

The noise is KL(float32‖bfloat16) of the same float32 weights, bfloat16 by autocast, in nats per token; both under the
float32 head, as keeptune reads drift. `noise_of_logits` is that of the model's own logits, which autocast rounds to
bfloat16 too. Intervals of means are bootstrapped over rows or documents; of shares they are Wilson's.

- `probes`: every candidate opening, and which one the rule takes.
- `own_text`: rows that the base samples after its opening, and after the start token alone, as rows began before.
- `first_tokens`: one token sampled after each of 256 openings.
- `windows`: Python's help, by what stands before it and at which position its loss begins.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

from shared import RESULTS, finish, use_device

SEED = 0
TARGET_NOISE, TARGET_SHARE = 0.0015, 0.25
"""Targets: the mean noise on own text, and the share of the most common first token."""
CONTEXT = 16
"""Tokens of the window before that later windows may be given as context."""


def floor(model: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The noise at the targets of encoded rows: mean, by the first positions, and the text's cross-entropy there."""
    import numpy as np
    import torch

    from keeptune.audit.meter import MEASURES, measure, target_states

    kl, ce = (MEASURES.index(name) for name in ("kl", "ce_base"))
    values: list[Any] = []
    states = partial(target_states, dtype=torch.bfloat16)
    drift = measure(
        model, model, rows, dtype=torch.float32, tuned_states=states, label="Noise",
        on_tokens=lambda row, values_NM: values.append(values_NM[:, [kl, ce]]),
    )  # fmt: skip
    first = np.stack([row[:8] for row in values if len(row) >= 8]).mean(axis=0)
    return {
        "rows": len(rows),
        "tokens": int(drift.tokens_D.sum()),
        "noise": drift.interval("kl").as_dict(),
        "largest": float(max(row[:, 0].max() for row in values)),
        "first_four_of_the_sum": float(
            sum(row[:4, 0].sum() for row in values) / sum(row[:, 0].sum() for row in values)
        ),
        "noise_by_position": first[:, 0].round(5).tolist(),
        "cross_entropy_by_position": first[:, 1].round(3).tolist(),
    }


def own_text(model: Any, tokenizer: Any, rows: int, length: int, **opening: Any) -> dict[str, Any]:
    """Rows that the base samples in bfloat16 after an opening."""
    import torch

    from keeptune.audit.verdict import noise_floor
    from keeptune.replay.generate import sample_pool

    how: dict[str, Any] = {"tokens": rows * length, "length": length, "seed": SEED, "predictions": "none"}
    with tempfile.TemporaryDirectory() as name:
        pool = sample_pool(model, tokenizer, name, dtype=torch.bfloat16, **how, **opening)
        given = [len(pool.settings.opening_of(row)) for row in range(pool.rows)]
        tokens = [pool.tokens_of(row).tolist() for row in range(pool.rows)]
        settings = pool.settings
    encoded = [
        {"input_ids": ids, "labels": [-100] * g + ids[g:], "document": f"row {place}"}
        for place, (ids, g) in enumerate(zip(tokens, given, strict=True))
    ]
    of_audit = noise_floor(model, encoded)["kl"].as_dict()
    logits = noise_of_logits(model, encoded)
    return {
        "opening": settings.opening,
        **floor(model, encoded),
        "noise_of_logits": logits,
        "noise_floor_of_an_audit": of_audit,
    }


def noise_of_logits(model: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """KL(float32‖bfloat16) of the model's own logits at the targets of rows of one length, with its interval."""
    import numpy as np
    import torch

    from keeptune.models.modeling import autocast
    from keeptune.stats import bootstrap_ratio

    sums = []
    with torch.inference_mode():
        for row in rows:
            ids, first = torch.tensor([row["input_ids"]], device=model.device), row["labels"].count(-100) - 1
            exact_TV = model(input_ids=ids[:, :-1]).logits[0, first:].log_softmax(-1)
            with autocast(model.device, torch.bfloat16):
                rounded_TV = model(input_ids=ids[:, :-1]).logits[0, first:].float().log_softmax(-1)
            sums.append((exact_TV.exp() * (exact_TV - rounded_TV)).sum().item())
    targets = [len(row["labels"]) - row["labels"].count(-100) for row in rows]
    return bootstrap_ratio(np.array(sums), np.array(targets, dtype=float)).as_dict()


def first_tokens(model: Any, tokenizer: Any, openings: list[list[int]], rows: int) -> dict[str, Any]:
    """One sampled token after each opening, in turn; the openings are those of the pool."""
    import torch

    from keeptune.replay.engines.torch import TorchEngine
    from keeptune.stats import wilson

    engine = TorchEngine(model, dtype=torch.bfloat16, rows=64)
    asked = [openings[row % len(openings)] for row in range(rows)]
    sampled = torch.cat([engine.sample(64, 1, asked[at : at + 64], SEED + at)[:, -1] for at in range(0, rows, 64)])
    counts = Counter(sampled.tolist())
    (token, times), *_ = counts.most_common(1)
    common = {tokenizer.decode([one]): count for one, count in counts.most_common(8)}
    share = wilson(times, rows).as_dict()
    return {"rows": rows, "distinct": len(counts), "top": tokenizer.decode([token]), "share": share, "counts": common}


def windows(tokenizer: Any, openings: list[list[int]], start: int, documents: int, length: int) -> dict[str, Any]:
    """Windows of Python's help as encoded rows, by what stands before the first target."""
    from keeptune.data.documents import load_documents
    from keeptune.stats import evenly_spaced

    loaded = load_documents("pydoc")
    long = (tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in loaded["text"])
    texts = [ids for ids in long if len(ids) >= 3 * length]
    texts = [texts[place] for place in evenly_spaced(len(texts), documents)]

    def rows(before: Callable[[int, list[int]], list[int]], first: int) -> list[dict[str, Any]]:
        made = []
        for place, ids in enumerate(texts):
            context, read = before(place, ids), ids[first : first + length]
            labels = [-100] * len(context) + read
            made.append({"input_ids": [*context, *read], "labels": labels, "document": f"document {place}"})
        return made

    return {
        "beginning, nothing before it": rows(lambda place, ids: ids[:1], 1),
        "beginning, the start token before it": rows(lambda place, ids: [start], 0),
        "beginning, the opening before it": rows(lambda place, ids: openings[place % len(openings)], 0),
        "later window, one token before it": rows(lambda place, ids: ids[length - 1 : length], length),
        "later window, the opening before it": rows(
            lambda place, ids: [*openings[place % len(openings)], *ids[length - 1 : length]], length
        ),
        f"later window, {CONTEXT} tokens before it": rows(lambda place, ids: ids[length - CONTEXT : length], length),
        f"after a prompt of {CONTEXT} tokens": rows(lambda place, ids: ids[:CONTEXT], CONTEXT),
        f"after the start token and a prompt of {CONTEXT} tokens": rows(
            lambda place, ids: [start, *ids[:CONTEXT]], CONTEXT
        ),
        "after a prompt of 2 tokens": rows(lambda place, ids: ids[:2], 2),
    }


def tables() -> str:
    """The tables of docs/openings.md, from the raw results."""
    results = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("bench_openings_*.json"))]

    def interval(found: dict[str, Any] | None, digits: int = 5) -> str:
        return "{value:.{n}f} [{low:.{n}f}, {high:.{n}f}]".format(n=digits, **found) if found else "—"

    def row(*cells: str) -> str:
        return f"| {' | '.join(cells)} |"

    names = [result["model"] for result in results]
    lines = [row("", *names), "|---" * (1 + len(names)) + "|", row("chosen", *(result["chosen"] for result in results))]
    for part in ("chosen opening", "start token alone", "chat"):
        own = [result["own_text"].get(part, {}) for result in results]
        lines.append(row(f"noise on own text, {part}", *(interval(one.get("noise")) for one in own)))
        logits = (interval(one.get("noise_of_logits")) for one in own)
        lines.append(row(f"the same of the model's own logits, {part}", *logits))
        audit = (interval(one.get("noise_floor_of_an_audit")) for one in own)
        lines.append(row(f"the same as an audit reads it, {part}", *audit))
    for part in ("chosen opening", "start token alone"):
        firsts = [result["first_tokens"].get(part) for result in results]
        shares = (f"{interval(one['share'], 2)} {one['top']!r}" if one else "—" for one in firsts)
        lines.append(row(f"share of the most common first token, {part}", *shares))
    lines += ["", row("window", *names), "|---" * (1 + len(names)) + "|"]
    for name in max((result["windows"] for result in results), key=len):
        found = [result["windows"].get(name) for result in results]
        cells = (f"{one['noise']['value']:.5f} ({one['noise_by_position'][0]:.5f})" if one else "—" for one in found)
        lines.append(row(name, *cells))
    return "\n".join(lines)


def main() -> None:
    """Measure, and write the raw result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few rows, nothing written")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--name", default="smollm2", help="of the model, in the result's file name")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: the GPU where there is one")
    parser.add_argument(
        "--tables", action="store_true", help="print the tables of the raw results, and measure nothing"
    )
    arguments = parser.parse_args()
    if arguments.tables:
        print(tables())
        return
    device = use_device(arguments.device)

    from keeptune.models.loading import load_model, load_tokenizer
    from keeptune.replay.manifest import Opening
    from keeptune.replay.openings import find_openings

    tokenizer, model = load_tokenizer(arguments.model), load_model(arguments.model).to(device)
    rows, length, firsts, documents = (8, 24, 64, 6) if arguments.quick else (40, 64, 512, 12)
    chosen = find_openings(model, tokenizer, length=length, seed=SEED)
    settings = chosen.settings
    print(chosen.description, flush=True)
    probes = dict(settings["probe"])
    for name in [one for one in get_args(Opening)[1:] if one not in probes]:
        probes |= find_openings(model, tokenizer, opening=name, length=length, seed=SEED).settings["probe"]
    # Where the rule takes the start token alone, both are one measurement.
    others = {} if settings["opening"] == "start" else {"start token alone": {"opening": "start"}}
    chats = {"chat": {"prompts": "chat"}} if tokenizer.chat_template else {}
    asked = {"chosen opening": {}, **others, **chats}
    firsts_of = {"chosen opening": settings["openings"], **{name: [[settings["start_token"]]] for name in others}}
    read = windows(tokenizer, settings["openings"], settings["start_token"], documents, length)
    if settings["opening"] == "start":
        read = {name: of_window for name, of_window in read.items() if "the opening before" not in name}
    result: dict[str, Any] = {
        "model": arguments.name,
        "targets": {"noise": TARGET_NOISE, "share": TARGET_SHARE},
        "chosen": settings["opening"],
        "openings": [tokenizer.decode(opening) for opening in settings["openings"][:8]],
        "probes": probes,
        "first_tokens": {
            name: first_tokens(model, tokenizer, openings, firsts) for name, openings in firsts_of.items()
        },
        "own_text": {name: own_text(model, tokenizer, rows, length, **how) for name, how in asked.items()},
        "windows": {name: floor(model, encoded) for name, encoded in read.items()},
    }
    noise, share = (result[part]["chosen opening"] for part in ("own_text", "first_tokens"))
    result["kept"] = {
        "noise": noise["noise"]["value"] <= TARGET_NOISE,
        "share": share["share"]["value"] <= TARGET_SHARE,
    }
    finish(f"bench_openings_{arguments.name}", result, quick=arguments.quick)


if __name__ == "__main__":
    main()
