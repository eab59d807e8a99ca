"""What the replay term costs: a training step, and the term alone, against TRL and against the paper's dense form.

    python benchmarks/bench_step.py --quick      # under a minute, prints one JSON line last
    python benchmarks/bench_step.py              # writes results/bench_step.json

One process, one model, the same tokens, all methods interleaved round by round; ratios are medians over rounds of the
ratio within a round. `plain_vs_trl` compares whole processes, because keeptune's command line also sets the allocator.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
T = 128


def sft_arguments(folder: str, rows: int) -> Any:
    import torch
    from trl import SFTConfig

    return SFTConfig(
        output_dir=folder,
        per_device_train_batch_size=rows,
        max_steps=100,
        bf16=True,
        use_cpu=not torch.accelerator.is_available(),
        gradient_checkpointing=False,
        disable_tqdm=True,
        max_length=None,
        dataloader_pin_memory=False,
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


def stepper(trainer: Any, make_inputs: Callable[[], dict[str, Any]]) -> Callable[[], None]:
    """One optimizer step of a trainer, as its own loop does it."""
    import torch

    model = trainer.accelerator.prepare(trainer.model)
    trainer.model_wrapped = model
    trainer.current_gradient_accumulation_steps = 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        inputs = make_inputs()
        items = (inputs["labels"][:, 1:] != -100).sum()
        trainer.training_step(model, inputs, items)
        optimizer.step()
        optimizer.zero_grad()

    return step


def methods(rows: int, folder: str) -> dict[str, Callable[[], None]]:
    """Every method as a function to time, with B = `rows` task rows and B/2 replay rows of T tokens."""
    import copy

    import torch
    from trl import SFTTrainer
    from trl.trainer.distillation_config import DistillationConfig
    from trl.trainer.distillation_trainer import DistillationTrainer

    from keeptune import KeepConfig, KeepSFTTrainer, load_model, load_tokenizer, sample_pool
    from keeptune.objective import forward_kl
    from keeptune.replay.precision import autocast
    from keeptune.train.trainer import _REPLAY_KEY

    replay = rows // 2
    base, tokenizer = load_model("smollm2"), load_tokenizer("smollm2")
    pool = sample_pool(base, tokenizer, f"{folder}/pool", tokens=(replay + 1) * T, length=T)
    data = task_rows(rows + replay)
    shared = {"train_dataset": data, "processing_class": tokenizer}
    plain = SFTTrainer(model=copy.deepcopy(base), args=sft_arguments(f"{folder}/plain", rows + replay), **shared)
    keep = KeepSFTTrainer(
        model=copy.deepcopy(base),
        args=sft_arguments(f"{folder}/keep", rows),
        keep=KeepConfig(replay=str(pool.folder), replay_rows=replay, meter_rows=1),
        **shared,
    )
    indices = torch.arange(replay)
    plain_step = stepper(plain, lambda: as_batch(data, rows + replay))
    keep_step = stepper(keep, lambda: {**as_batch(data, rows), _REPLAY_KEY: (indices, replay * T)})
    batch = pool.batch(indices)
    device = next(keep.model.parameters()).device

    def ours_term() -> None:
        (keep.replay_sum(keep.model_wrapped, pool.batch(indices).to(device)) / (replay * T)).backward()
        keep.model.zero_grad()

    student = copy.deepcopy(base).to(device).train()
    teacher = copy.deepcopy(base).to(device).eval()
    inputs = batch.inputs_BT.to(device)

    def dense_term() -> None:
        with autocast(device, torch.bfloat16):
            student_BTV = student(input_ids=inputs, use_cache=False).logits
            with torch.no_grad():
                teacher_BTV = teacher(input_ids=inputs, use_cache=False).logits
            loss = forward_kl(student_BTV.flatten(0, 1), teacher_BTV.flatten(0, 1)) / (replay * T)
        loss.backward()
        student.zero_grad()

    distillation = DistillationTrainer(
        model=copy.deepcopy(base),
        teacher_model=copy.deepcopy(base),
        args=DistillationConfig(
            output_dir=f"{folder}/distill",
            beta=0.0,
            bf16=True,
            use_cpu=not torch.accelerator.is_available(),
            gradient_checkpointing=False,
            disable_tqdm=True,
        ),
        train_dataset=_prompts(),
        processing_class=tokenizer,
    )
    tokens = batch.tokens_BT1.to(device)
    ones = torch.ones_like(tokens)
    distilled = {
        "prompt_ids": tokens[:, :1],
        "prompt_mask": ones[:, :1],
        "completion_ids": tokens[:, 1:],
        "completion_mask": ones[:, 1:],
    }
    distilled_model = distillation.accelerator.prepare(distillation.model).train()

    def distillation_term() -> None:
        with distillation.accelerator.autocast():
            loss, *_ = distillation._compute_loss(distilled_model, distilled, None)
        loss.backward()
        distilled_model.zero_grad()

    return {
        "plain TRL, all tokens task": plain_step,
        "keeptune, a third of them replay": keep_step,
        "replay term": ours_term,
        "replay term, dense live teacher": dense_term,
        "replay term, TRL distillation": distillation_term,
    }


def _prompts() -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"prompt": ["a", "b"]})


def plain_worker(kind: str, rows: int, steps: int) -> float:
    """Median seconds of a plain step in a process of its own."""
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
            keep = KeepConfig(lambda_=0.0, replay=str(pool.folder), meter_rows=1)
            trainer = KeepSFTTrainer(model=base, keep=keep, **shared)
        else:
            trainer = SFTTrainer(model=base, **shared)
        step = stepper(trainer, lambda: as_batch(data, rows))
        return statistics.median(timed(step) for _ in range(steps + 1))


def timed(work: Callable[[], None]) -> float:
    import torch

    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(rows: int, rounds: int) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        todo = methods(rows, folder)
        seconds: dict[str, list[float]] = {name: [] for name in todo}
        for number in range(rounds + 1):
            for name, work in todo.items():
                elapsed = timed(work)
                if number:
                    seconds[name].append(elapsed)
        return seconds


def ratio(seconds: dict[str, list[float]], above: str, below: str) -> float:
    return round(statistics.median(a / b for a, b in zip(seconds[above], seconds[below], strict=True)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small batch, two rounds, nothing written")
    parser.add_argument("--worker", choices=("trl", "keeptune"), help="time plain steps in this process")
    arguments = parser.parse_args()
    rows, rounds = (4, 2) if arguments.quick else (8, 7)
    if arguments.worker:
        print(json.dumps(plain_worker(arguments.worker, rows, rounds)))
        return
    plain: dict[str, list[float]] = {"trl": [], "keeptune": []}
    for _ in range(1 if arguments.quick else 3):
        for kind, found in plain.items():
            command = [sys.executable, __file__, "--worker", kind, *(["--quick"] if arguments.quick else [])]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(float(done.stdout.splitlines()[-1]))
    from keeptune.cli import _prepare_process
    from keeptune.versions import provenance

    _prepare_process()
    seconds = measure(rows, rounds)
    names = list(seconds)
    result = {
        "benchmark": "bench_step",
        "task_rows": rows,
        "replay_rows": rows // 2,
        "length": T,
        "rounds": rounds,
        "step_vs_plain": ratio(seconds, names[1], names[0]),
        "replay_term_vs_dense": ratio(seconds, names[2], names[3]),
        "replay_term_vs_trl_distillation": ratio(seconds, names[2], names[4]),
        "plain_vs_trl": ratio(plain, "keeptune", "trl"),
        "seconds": {name: [round(s, 4) for s in found] for name, found in {**seconds, **plain}.items()},
        **provenance(0),
    }
    if not arguments.quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "bench_step.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
