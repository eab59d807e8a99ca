"""The certificate of a budget: the finished model's KL on rows that neither training nor λ saw, with an interval.

The meter's rows steer λ (`keeptune.train.budget.steering`), so others are read here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from keeptune.audit.meter import MEASURES
from keeptune.audit.verdict import MIN_DOCUMENTS
from keeptune.replay.pool import ReplayBatch
from keeptune.stats import Interval, bootstrap_ratio
from keeptune.storage import read_json
from keeptune.system import versions
from keeptune.train.callbacks.drift import drift_of_tokens

if TYPE_CHECKING:
    from keeptune.train.trainer import KeepSFTTrainer

FILE = "certificate.json"
KEPT, BROKEN = "kept", "broken"
NOT_SURE = "not sure: more held-out rows would tell"
RULE = (
    f"{KEPT}: the 95 % interval over rows ends within the budget. {BROKEN}: it begins beyond. {NOT_SURE}: it holds the "
    f"budget, or there are fewer than {MIN_DOCUMENTS} rows."
)


def certify(trainer: KeepSFTTrainer, batch: ReplayBatch) -> dict[str, Any]:
    """Read the model as it is now and say whether it is within `trainer.keep.budget`. All ranks must call it.

    Args:
        batch: rows that neither training nor λ saw, with the base's hidden states.

    Returns:
        For JSON: `budget`; `kl`, nats per token, with its interval over rows; `verdict` by `rule`; `tokens` read;
        `lambda` and `step` at the end; and what made it.
    """
    model = trainer.model
    was_training = model.training
    model.eval()
    with torch.no_grad():
        values = trainer.inside(
            trainer.model_wrapped,
            lambda inner: torch.cat([part.cpu() for part in drift_of_tokens(inner, trainer, batch)]),
        )
    model.train(was_training)
    kl_RT = values[:, MEASURES.index("kl")].double().reshape(batch.targets_BT.shape)
    rows, length = kl_RT.shape
    kl = bootstrap_ratio(kl_RT.sum(dim=1).numpy(), np.full(rows, float(length)))
    return {
        "budget": trainer.keep.budget,
        "kl": kl.as_dict(),
        "verdict": verdict(kl, float(trainer.keep.budget or 0.0)),
        "rule": RULE,
        "tokens": rows * length,
        "lambda": trainer.lambda_,
        "step": trainer.state.global_step,
        "base": trainer.base_fingerprint,
        "seed": trainer.args.seed,
        "versions": versions(),
    }


def read_certificate(folder: Path) -> dict[str, Any]:
    """The certificate in a run's folder.

    Raises:
        SourceError: it is damaged.
    """
    file = folder / FILE
    certificate: dict[str, Any] = read_json(file, f"delete {file} and resume the run: it certifies again")
    return certificate


def verdict(kl: Interval, budget: float) -> str:
    """`RULE` in code."""
    if kl.low is None or kl.high is None or kl.documents < MIN_DOCUMENTS:
        return NOT_SURE
    if kl.high <= budget:
        return KEPT
    return BROKEN if kl.low > budget else NOT_SURE


def in_words(certificate: dict[str, Any]) -> str:
    """The certificate as one line."""
    kl = certificate["kl"]
    interval = "" if kl["low"] is None else f" [{kl['low']:.4f}, {kl['high']:.4f}]"
    return (
        f"Budget of {certificate['budget']:g} nats per token: {certificate['verdict']}. "
        f"KL(base‖tuned) {kl['value']:.4f}{interval} on {kl['documents']} rows that neither training nor λ saw."
    )
