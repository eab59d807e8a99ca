"""Whether sampled rows are what was asked for, and follow the base's own distribution.

Shapes: R rows, C checked rows, T targets per row, N tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from keeptune.errors import ConfigError, PoolError
from keeptune.log import logger
from keeptune.models.modeling import autocast, head_of
from keeptune.replay.batch import ReplayBatch
from keeptune.replay.decoding.proof import OTHER_TEXT
from keeptune.replay.engines import Engine
from keeptune.replay.engines.torch import tempered
from keeptune.replay.teachers import teacher_outputs

# Tokens of a shard to test: enough to see a mean shift of 0.1 nats, and about 1 % of the time of sampling a shard.
_TESTED_TOKENS = 4096
# Tensors of so many values that are held at once.
PROOF_TENSORS, LOGITS_AT_ONCE = 7, 2**22
# Beyond 6 by chance: once in 10⁸ shards.
_MOST_Z = 6.0
# A decoder and the full forward round differently: the mean that this may move, in nats per token at temperature 1.
_ROUNDING_NATS = 0.01
# The median difference in nats that is rounding: of 32-bit sampling, of 16-bit sampling (0.02 is seen), and of weights
# that are 16 bits wide themselves, where the full forward's own rounding cannot be measured.
_NATS, _NATS_16_BIT, _NATS_16_BIT_WEIGHTS, _TIMES_OWN_ROUNDING = 0.02, 0.1, 0.25, 3.0
_SEGMENTS, _SEGMENT = 16, 8


def check_rows(tokens_RT1: Tensor, opening: list[list[int]], sampled: int, vocabulary: int, engine: str) -> None:
    """Raise `PoolError` if an engine returned anything else than the openings, continued with tokens."""
    expected = (len(opening), len(opening[0]) + sampled)
    fault = None
    if tokens_RT1.shape != expected or tokens_RT1.dtype != torch.int64:
        fault = f"{tokens_RT1.dtype} {list(tokens_RT1.shape)}, expected torch.int64 {list(expected)}"
    elif not torch.equal(tokens_RT1[:, : len(opening[0])], torch.tensor(opening)):
        fault = "rows that do not start with their openings"
    elif tokens_RT1.min() < 0 or tokens_RT1.max() >= vocabulary:
        fault = f"ids outside the base's vocabulary of {vocabulary}"
    if fault:
        raise PoolError(f"the engine {engine!r} returned {fault}", "correct the engine, or use engine='torch'")


def follows_base(tokens_RT1: Tensor, model: nn.Module, dtype: torch.dtype, sampled: int, engine: Engine) -> bool:
    """Whether the last `sampled` tokens of each row follow the base's distribution; False if the engine slowed down.

    An engine with a method `slow_down` is asked to take a slower and safer form, until it has none. An engine of
    another kind is warned about, because its distribution may differ on purpose.

    Raises `ConfigError` if the rows do not follow the base, and the engine has no other form.
    """
    difference = stepped_difference(tokens_RT1, model, dtype, engine)
    z = sampling_z(tokens_RT1, model, dtype, sampled, engine.temperature)
    if difference is None and abs(z) <= _MOST_Z:
        return True
    fault = f"samples of {type(model).__name__} do not follow its predictions ({difference or f'z = {z:.1f}'})"
    slow_down = getattr(engine, "slow_down", None)
    if slow_down is None:
        logger.warning(f"{fault}: does the engine {engine.name!r} run another model, or cut the distribution?")
        return True
    if not slow_down():
        raise ConfigError(fault, OTHER_TEXT)
    logger.warning(f"{fault}: they are sampled again without a cache, which takes many times longer")
    return False


def stepped_difference(tokens_RT1: Tensor, model: nn.Module, dtype: torch.dtype, engine: Engine) -> str | None:
    """Where the log-probabilities that an engine drew with differ from the full forward's, over whole rows.

    Short probes do not reach past a long sliding window, an attention chunk, or the length from which RoPE is scaled.
    Of each sixteenth of a row, or 8 tokens, the median decides. None if all are equal up to rounding, whose measure is
    the full forward's own where the weights are wider than `dtype`; or if the engine keeps none (`log_probs_CT`).
    """
    stepped_CT = getattr(engine, "log_probs_CT", None)
    if stepped_CT is None:
        return None
    rows_CT1, sampled = tokens_RT1[: len(stepped_CT)], stepped_CT.shape[1]
    wide = next(model.parameters()).dtype
    exact_CT = _log_probs(rows_CT1, model, wide, sampled)
    rounding_CT = (_log_probs(rows_CT1, model, dtype, sampled) - exact_CT).abs()
    least = _NATS_16_BIT_WEIGHTS if wide.itemsize == 2 else _NATS_16_BIT if dtype.itemsize == 2 else _NATS
    size = max(_SEGMENT, -(-sampled // _SEGMENTS))
    parts = zip((stepped_CT - exact_CT).abs().split(size, dim=1), rounding_CT.split(size, dim=1), strict=True)
    for number, (off_CS, own_CS) in enumerate(parts):
        off, limit = off_CS.median().item(), max(least, _TIMES_OWN_ROUNDING * own_CS.median().item())
        if not off <= limit:
            position = tokens_RT1.shape[1] - sampled + number * size
            return f"drawn log-probabilities off by {off:.2g} nats from token {position}"
    return None


@torch.no_grad()
def sampling_z(tokens_RT1: Tensor, model: nn.Module, dtype: torch.dtype, sampled: int, temperature: float) -> float:
    """How far the mean log-probability of sampled tokens lies from what the base expects of its own samples.

    Under the base, −log p(token) − entropy has mean 0 given all earlier tokens, and its variance is known: their sums
    give z. The largest single term b enters as in Freedman's inequality (1975), S / √(V + b·|S| / 3), so that one
    unlikely token of a nearly certain model is no evidence. What rounding may move the mean by is taken off.

    Args:
        tokens_RT1: int64 [R, T + 1]; evenly spaced rows of them are tested, about 4096 tokens.
        sampled: the last tokens of each row that were sampled.

    Returns:
        z; below 0 if the tokens are likelier than samples of the base, above 0 if less likely. NaN and infinite
        predictions give infinity.
    """
    count = min(len(tokens_RT1), max(1, _TESTED_TOKENS // sampled))
    rows_RT1 = tokens_RT1[torch.linspace(0, len(tokens_RT1) - 1, count).round().long()]
    surplus, variance = [], []
    for logits_NV, drawn_N1 in _full_logits(rows_RT1, model, dtype, sampled):
        surprise_NV = -tempered(logits_NV, temperature).log_softmax(dim=-1)
        p_NV = (-surprise_NV).exp()
        drawn_N = surprise_NV.gather(1, drawn_N1)[:, 0]
        surprise_NV = surprise_NV.masked_fill(p_NV == 0, 0.0)  # may be infinite, and never drawn
        entropy_N = (p_NV * surprise_NV).sum(dim=-1)
        surplus.append(drawn_N - entropy_N)
        variance.append((p_NV * (surprise_NV - entropy_N[:, None]).square()).sum(dim=-1))
    surplus_N, variance_N = torch.cat(surplus).double(), torch.cat(variance).double()
    total, largest = surplus_N.sum(), surplus_N.abs().max()
    rounding = len(surplus_N) * _ROUNDING_NATS / min(temperature, 1.0) ** 2
    total = total.sign() * (total.abs() - rounding).clamp(min=0.0)
    z = total / (variance_N.sum() + largest * total.abs() / 3).clamp(min=1e-12).sqrt()
    return float(z.nan_to_num(nan=torch.inf))


@torch.no_grad()
def _log_probs(rows_CT1: Tensor, model: nn.Module, dtype: torch.dtype, sampled: int) -> Tensor:
    """The full forward's log-probabilities of the last `sampled` tokens of each row, fp32 [C, T]."""
    blocks = _full_logits(rows_CT1, model, dtype, sampled)
    log_p = [logits_NV.log_softmax(dim=-1).gather(1, drawn_N1) for logits_NV, drawn_N1 in blocks]
    return torch.cat(log_p).view(len(rows_CT1), sampled).cpu()


def _full_logits(
    rows_RT1: Tensor, model: nn.Module, dtype: torch.dtype, sampled: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The full forward's logits fp32 [N, V] before, and the ids [N, 1] of, the last `sampled` tokens of each row."""
    head = head_of(model)
    vocabulary, device = len(head.weight_VD), head.weight_VD.device
    opening_R = torch.full((len(rows_RT1),), rows_RT1.shape[1] - sampled)
    batch = ReplayBatch(tokens_BW=rows_RT1, opening_B=opening_R)
    hidden_ND = teacher_outputs(model, batch, dtype, "hidden", 0)["hidden"].flatten(0, 1)
    drawn_N1 = batch.targets_BT.reshape(-1, 1)
    block = max(1, LOGITS_AT_ONCE // vocabulary)
    with autocast(device, dtype):
        for some_ND, drawn in zip(hidden_ND.split(block), drawn_N1.split(block), strict=True):
            yield head.logits(some_ND.to(device, head.weight_VD.dtype)).float(), drawn.to(device)
