"""What the replay term costs: a training step, and the term alone, against TRL and against the paper's dense form.

    python benchmarks/bench_step.py --quick      # under a minute, prints one JSON line last
    python benchmarks/bench_step.py              # writes results/bench_step.json (bench_step_cuda.json on a GPU)

One process, the same tokens, all methods interleaved round by round; ratios are medians over rounds of the ratio
within a round. keeptune's model is set up as `keeptune tune` sets it up (on a CPU, rows this short attend through
plain matrix products), the others as transformers loads it; `..._same_attention` gives the dense form ours too.
`plain_vs_trl` compares whole processes, because keeptune's command line also sets the allocator.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from shutil import which
from typing import Any

from shared import finish, use_device

T = 128
QUICK_PLAIN_ROWS = 2
PLAIN, KEEP, OURS, DENSE = "plain TRL, all tokens task", "keeptune, a third of them replay", "hidden", "dense"
DISTILLATION, DENSE_OURS, OWN_PLAIN = "TRL distillation", "dense, our attention", "keeptune, plain, few rows"
Work = Callable[[], None]


def sft_arguments(folder: str, rows: int, config: Any = None) -> Any:
    import torch
    from trl import SFTConfig

    return (config or SFTConfig)(
        output_dir=folder,
        per_device_train_batch_size=rows,
        max_steps=100,
        bf16=True,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **({"max_length": None} if config is None else {"beta": 0.0}),
    )


def task_rows(rows: int) -> Any:
    import torch
    from datasets import Dataset

    ids = torch.randint(3, 49_000, (rows, T), generator=torch.Generator().manual_seed(0)).tolist()
    return Dataset.from_dict({"input_ids": ids, "labels": ids})


def as_batch(dataset: Any, rows: int) -> dict[str, Any]:
    import torch

    ids = torch.tensor(dataset["input_ids"][:rows])
    return {"input_ids": ids, "labels": ids.clone(), "attention_mask": torch.ones_like(ids)}


def stepper(trainer: Any) -> Callable[[dict[str, Any]], None]:
    """One optimizer step of a trainer, as its own loop does it."""
    import torch

    model = trainer.accelerator.prepare(trainer.model)
    trainer.model_wrapped = model
    trainer.current_gradient_accumulation_steps = 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step(batch: dict[str, Any]) -> None:
        inputs = dict(batch)
        items = (inputs["labels"][:, 1:] != -100).sum()
        trainer.training_step(model, inputs, items)
        optimizer.step()
        optimizer.zero_grad()

    return step


def term_rows(rows: int) -> int:
    """Replay rows for the term alone: those of a step, but no fewer than keep two cores busy."""
    return max(3, rows // 2)


def our_model(base: Any, lora: bool = False) -> Any:
    from peft import get_peft_model

    from keeptune.models.modeling import select_attention
    from keeptune.runs.trainer import lora_config

    model = copy.deepcopy(base)
    select_attention(model, T)
    return get_peft_model(model, lora_config(model, 16)) if lora else model


def trainers(base: Any, tokenizer: Any, pool: Any, rows: int, folder: str) -> dict[str, Work]:
    """Whole steps: TRL's and ours, on as many tokens, and ours without replay; and our replay term alone."""
    import torch
    from trl import SFTTrainer

    from keeptune import KeepConfig, KeepSFTTrainer
    from keeptune.train.mixin import call_inside
    from keeptune.train.replay_term import replay_sum

    replay = rows // 2
    data = task_rows(rows + replay)
    shared = {"train_dataset": data, "processing_class": tokenizer}
    plain = SFTTrainer(model=copy.deepcopy(base), args=sft_arguments(f"{folder}/plain", rows + replay), **shared)
    settings = KeepConfig(replay=str(pool.folder), replay_rows=replay, drift_rows=1)
    keep = KeepSFTTrainer(model=our_model(base), args=sft_arguments(f"{folder}/keep", rows), keep=settings, **shared)
    whole, part, few = (as_batch(data, count) for count in (rows + replay, rows, QUICK_PLAIN_ROWS))
    step, plain_step = stepper(keep), stepper(plain)
    context = keep.context

    def keeping() -> None:
        keep.get_batch_samples(iter([part]), 1, keep.args.device)  # opens the step's window, as the trainer's loop does
        step(part)

    def without_replay() -> None:
        keep.context = None
        step(few)
        keep.context = context

    def term() -> None:
        batch = pool.batch(torch.arange(term_rows(rows))).to(keep.args.device)
        total = call_inside(keep, keep.model_wrapped, lambda inner: replay_sum(inner, batch, context.teacher))
        (total / batch.targets_BT.numel()).backward()
        keep.model.zero_grad()

    return {PLAIN: lambda: plain_step(whole), KEEP: keeping, OWN_PLAIN: without_replay, OURS: term}


def our_terms(base: Any, pools: dict[str, Any], replay: int, device: Any) -> dict[str, Work]:
    """The replay term with every other teacher, on the model itself and on a LoRA over it."""
    import torch

    from keeptune.models.modeling import autocast
    from keeptune.objective import fused
    from keeptune.replay.teachers import make_teacher
    from keeptune.train.replay_term import replay_sum

    def term(model: Any, kind: Any, pool: Any) -> Work:
        teacher = make_teacher(kind, model, torch.bfloat16)

        def work() -> None:
            batch = pool.batch(torch.arange(replay)).to(device)
            with autocast(device, torch.bfloat16):
                loss = replay_sum(model, batch, teacher) / (replay * T)
            loss.backward()
            model.zero_grad()

        return work

    def compiled(work: Work) -> Work:
        """The same with its blocks compiled, as a GPU gets them."""
        step = torch.compile(fused.block_step)

        def replaced() -> None:
            before, fused.block_step = fused.block_step, step
            try:
                work()
            finally:
                fused.block_step = before

        return replaced

    full, lora = our_model(base).to(device).train(), our_model(base, lora=True).to(device).train()
    hidden = term(full, "hidden", pools["hidden"])
    return {
        "hidden again": hidden,
        **({"hidden, compiled blocks": compiled(hidden)} if device.type == "cpu" and which("g++") else {}),
        "topk": term(full, "topk", pools["topk"]),
        "live": term(full, "live", pools["hidden"]),
        "LoRA, hidden": term(lora, "hidden", pools["hidden"]),
        "LoRA, adapter off": term(lora, "adapter", pools["hidden"]),
    }


def dense_term(student: Any, teacher: Any, inputs: Any) -> Work:
    """The paper's form: both models' whole logits, the teacher run anew."""
    import torch

    from keeptune.models.modeling import autocast
    from keeptune.objective import forward_kl

    def work() -> None:
        with autocast(inputs.device, torch.bfloat16):
            student_BTV = student(input_ids=inputs, use_cache=False).logits
            with torch.no_grad():
                teacher_BTV = teacher(input_ids=inputs, use_cache=False).logits
            loss = forward_kl(student_BTV.flatten(0, 1), teacher_BTV.flatten(0, 1)) / inputs.numel()
        loss.backward()
        student.zero_grad()

    return work


def distillation_term(base: Any, tokenizer: Any, tokens: Any, folder: str) -> Work:
    """TRL's DistillationTrainer with the base as its teacher and the forward KL."""
    import torch
    from datasets import Dataset
    from trl.trainer.distillation_config import DistillationConfig
    from trl.trainer.distillation_trainer import DistillationTrainer

    trainer = DistillationTrainer(
        model=copy.deepcopy(base),
        teacher_model=base,
        args=sft_arguments(f"{folder}/distill", 1, DistillationConfig),
        train_dataset=Dataset.from_dict({"prompt": ["a", "b"]}),
        processing_class=tokenizer,
    )
    ones = torch.ones_like(tokens)
    inputs = {
        "prompt_ids": tokens[:, :1],
        "prompt_mask": ones[:, :1],
        "completion_ids": tokens[:, 1:],
        "completion_mask": ones[:, 1:],
    }
    model = trainer.accelerator.prepare(trainer.model).train()

    def work() -> None:
        with trainer.accelerator.autocast():
            loss, *_ = trainer._compute_loss(model, inputs, None)
        loss.backward()
        model.zero_grad()

    return work


def methods(rows: int, folder: str, *, quick: bool) -> dict[str, Work]:
    """Every method as a function to time, with B = `rows` task rows and B/2 replay rows of T tokens."""
    import torch

    from keeptune import load_model, load_tokenizer, sample_pool

    replay = term_rows(rows)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base, tokenizer = load_model("smollm2").to(device), load_tokenizer("smollm2")
    shared: dict[str, Any] = {"tokens": (replay + 1) * T, "length": T}
    pools = {
        kind: sample_pool(base, tokenizer, f"{folder}/{kind}", predictions=kind, **shared)
        for kind in ("hidden", *(() if quick else ("topk",)))
    }
    tokens = pools["hidden"].batch(torch.arange(replay)).tokens_BW.to(device)
    found = trainers(base, tokenizer, pools["hidden"], rows, folder)
    found[DENSE] = dense_term(copy.deepcopy(base).train(), base.eval(), tokens[:, :-1])
    found[DISTILLATION] = distillation_term(base, tokenizer, tokens, folder)
    if not quick:
        found[DENSE_OURS] = dense_term(our_model(base).train(), our_model(base).eval(), tokens[:, :-1])
        found |= our_terms(base, pools, replay, device)
    return found


def plain_worker(kind: str, rows: int, steps: int, *, wait: bool) -> float:
    """Median seconds of a plain step in a process of its own, once told to go where it shall wait."""
    from keeptune.cli import _prepare_process

    if kind == "keeptune":
        _prepare_process()
    from trl import SFTTrainer

    from keeptune import KeepConfig, KeepSFTTrainer, load_model, load_tokenizer, sample_pool

    base, tokenizer = load_model("smollm2"), load_tokenizer("smollm2")
    data = task_rows(rows)
    with tempfile.TemporaryDirectory() as folder:
        shared = {"train_dataset": data, "processing_class": tokenizer, "args": sft_arguments(folder, rows)}
        if kind == "keeptune":
            pool = sample_pool(base, tokenizer, f"{folder}/pool", tokens=16, length=8)
            keep = KeepConfig(lambda_=0.0, replay=str(pool.folder), drift_rows=1)
            trainer = KeepSFTTrainer(model=our_model(base), keep=keep, **shared)
        else:
            trainer = SFTTrainer(model=base, **shared)
        step, batch = stepper(trainer), as_batch(data, rows)
        if wait:
            sys.stdin.readline()
        return statistics.median([timed(lambda: step(batch)) for _ in range(steps + 1)][1:])


def timed(work: Work) -> float:
    import torch

    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(rows: int, rounds: int, *, quick: bool) -> dict[str, list[float]]:
    """Seconds of every method, round by round; quickly, the TRL process too, which makes ready meanwhile."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if quick:
            command = [sys.executable, __file__, "--worker", "trl", "--rows", str(QUICK_PLAIN_ROWS), "--wait"]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            worker = stack.enter_context(subprocess.Popen([*command, "--rounds", "1"], **pipes))
        todo = methods(rows, folder, quick=quick)
        trl = [float(worker.communicate("go\n")[0].splitlines()[-1])] if quick else []
        own_plain = todo.pop(OWN_PLAIN)
        seconds: dict[str, list[float]] = {name: [] for name in todo}
        for number in range(rounds + 1):
            for name, work in todo.items():
                elapsed = timed(work)
                if number:
                    seconds[name].append(elapsed)
        return seconds | ({"trl": trl, "keeptune": [min(timed(own_plain) for _ in range(2))]} if quick else {})


def plain_processes(rows: int, rounds: int) -> dict[str, list[float]]:
    """Median seconds of a plain step, a process each, in turns."""
    found: dict[str, list[float]] = {"trl": [], "keeptune": []}
    for _ in range(5):
        for kind in ("trl", "keeptune"):
            command = [sys.executable, __file__, "--worker", kind, "--rows", str(rows), "--rounds", str(rounds)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[kind].append(float(done.stdout.splitlines()[-1]))
    return found


def ratio(seconds: dict[str, list[float]], above: str, below: str) -> tuple[float, list[float]]:
    """Median over rounds, and the smallest and largest."""
    found = sorted(a / b for a, b in zip(seconds[above], seconds[below], strict=True))
    return round(statistics.median(found), 3), [round(found[0], 3), round(found[-1], 3)]


RATIOS = {
    "step_vs_plain": (KEEP, PLAIN),
    "replay_term_vs_dense": (OURS, DENSE),
    "replay_term_vs_trl_distillation": (OURS, DISTILLATION),
    "plain_vs_trl": ("keeptune", "trl"),
    "replay_term_vs_dense_same_attention": (OURS, DENSE_OURS),
    "topk_vs_dense": ("topk", DENSE),
    "live_vs_dense": ("live", DENSE),
    "compiled_vs_blocks": ("hidden, compiled blocks", "hidden again"),
    "lora_adapter_off_vs_hidden": ("LoRA, adapter off", "LoRA, hidden"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small batch, two rounds, nothing written")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: the GPU where there is one")
    parser.add_argument("--rows", type=int, help="task rows; half as many are replay")
    parser.add_argument("--rounds", type=int, help="timed rounds after a first that warms up")
    parser.add_argument("--worker", choices=("trl", "keeptune"), help="time plain steps in this process")
    parser.add_argument("--wait", action="store_true", help="once ready, wait for a line on standard input")
    arguments = parser.parse_args()
    device = use_device(arguments.device)
    rows = arguments.rows or (4 if arguments.quick else 8 if device == "cpu" else 64)
    rounds = arguments.rounds or (2 if arguments.quick else 7)
    if arguments.worker:
        print(json.dumps(plain_worker(arguments.worker, rows, rounds, wait=arguments.wait)))
        return
    seconds = {} if arguments.quick else plain_processes(rows + rows // 2, 3)
    from keeptune.cli import _prepare_process

    _prepare_process()
    seconds |= measure(rows, rounds, quick=arguments.quick)
    result: dict[str, Any] = {"task_rows": rows, "replay_rows": rows // 2, "term_rows": term_rows(rows), "length": T}
    result["rounds"] = rounds
    for name, (above, below) in RATIOS.items():
        if above in seconds and below in seconds:
            result[name], result[f"{name}_range"] = ratio(seconds, above, below)
    result["seconds"] = {name: [round(s, 4) for s in found] for name, found in seconds.items()}
    finish("bench_step" if rows != 2 else "bench_step_2", result, quick=arguments.quick)


if __name__ == "__main__":
    main()
