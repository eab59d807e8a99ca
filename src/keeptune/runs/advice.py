"""What a run's settings are known to cost, each line with the source that measured it. Advice, never a refusal.

Nothing is said that no source or measurement backs; the defaults of `keeptune tune` give no advice.
"""

from __future__ import annotations

import math
from pathlib import Path

from trl import SFTConfig

from keeptune.replay.manifest import read_manifest
from keeptune.runs.settings import DEFAULT_LR, TuneSettings

MOST_ROUNDS = 10


def advise(settings: TuneSettings, args: SFTConfig, task_rows: int) -> list[str]:
    """`advice` for a run of `keeptune tune` over `task_rows` rows, from the pool it names or the one it will write."""
    window = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    steps = args.max_steps if args.max_steps > 0 else math.ceil(task_rows * args.num_train_epochs / window)
    pool = read_manifest(Path(settings.replay)) if settings.replay else None
    rows = math.ceil(settings.replay_tokens / settings.replay_length)
    if pool is not None:
        held_out = settings.drift_rows + settings.scale_rows(pool.rows) + settings.certificate_rows(pool.rows)
        rows = pool.rows - held_out
    return advice(settings, args, steps=steps, pool_rows=rows)


def advice(settings: TuneSettings, args: SFTConfig, *, steps: int, pool_rows: int) -> list[str]:
    """Lines to say before a run starts.

    Args:
        args: what the settings and their table [sft] come to; its learning rate is the run's.
        steps: optimizer steps of the run; pool_rows: rows of its pool that training draws from.
    """
    lines = [_no_replay(settings), _high_rate(settings, args), _ntp(settings), _low_rate(settings, args)]
    lines.append(_worn_pool(settings, args, steps, pool_rows))
    return [line for line in lines if line]


def _no_replay(settings: TuneSettings) -> str:
    if settings.lambda_:
        return ""
    return (
        "lambda 0: nothing holds the old predictions. Self-generated KL replay at lambda 10 took 97 % off the "
        "forgetting, 0.113 → 0.003 nats per token, for 0.006 of task loss and about 1.4 times the steps (205 M "
        "parameters; Marek et al. 2026, arXiv 2605.26097): --lambda 1, or more to keep more; keeptune repair is for a "
        "model that has forgotten already"
    )


def _high_rate(settings: TuneSettings, args: SFTConfig) -> str:
    usual = DEFAULT_LR["lora" if settings.lora else "full"]
    if settings.lambda_ or args.learning_rate <= usual:
        return ""
    return (
        f"learning rate {args.learning_rate:g} without replay: to the same task loss, 1e-3 raised the old loss "
        "by 0.33 nats per token, 1e-4 by 0.05, 1e-5 by 0.01 (all weights, against 1e-7; Marek et al. 2026): "
        f"--learning-rate {usual:g} or less, or --lambda 1"
    )


def _ntp(settings: TuneSettings) -> str:
    if settings.lambda_ == 0.0 or settings.objective != "ntp":
        return ""
    return (
        "objective ntp forgets twice what kl does on the same self-generated text, 0.0057 against 0.0029 nats per "
        "token, and 1.1 points more of the benchmarks after Verilog (Marek et al. 2026): --objective kl"
    )


def _low_rate(settings: TuneSettings, args: SFTConfig) -> str:
    if settings.lora is None or args.learning_rate > DEFAULT_LR["full"]:
        return ""
    return (
        f"learning rate {args.learning_rate:g} is one for all weights: a LoRA wants about ten times as much (Schulman "
        "et al. 2025, LoRA Without Regret), and at the same rate it learned less and forgot more, 0.140 against 0.113 "
        f"nats per token (Marek et al. 2026): --learning-rate {DEFAULT_LR['lora']:g}"
    )


def _worn_pool(settings: TuneSettings, args: SFTConfig, steps: int, pool_rows: int) -> str:
    rows = settings.replay_rows or args.per_device_train_batch_size
    seen = steps * args.gradient_accumulation_steps * args.world_size * rows
    if settings.lambda_ == 0.0 or pool_rows < 1 or seen <= MOST_ROUNDS * pool_rows:
        return ""
    enough = math.ceil(seen / MOST_ROUNDS)
    return (
        f"each replay row is used {seen / pool_rows:.0f} times: the results this rests on come from samples used once "
        f"(Marek et al. 2026), and more replay is not always better (arXiv 2506.04377): a pool of {enough:,} rows or "
        f"more, --replay-tokens {enough * settings.replay_length} where the run writes it"
    )
