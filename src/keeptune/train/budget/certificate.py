"""The certificate of a budget: the finished model's KL on rows that neither training nor λ saw, with an interval.

The rows on which drift is read steer λ (`keeptune.train.budget.callback`), so other rows are read here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from keeptune.codec import from_json
from keeptune.errors import ConfigError
from keeptune.objective.drift import MEASURES
from keeptune.stats import MIN_DOCUMENTS, Array, Interval, bootstrap_ratio, format_interval
from keeptune.storage import damaged_json, read_json
from keeptune.system import versions
from keeptune.train.context import KeepContext
from keeptune.train.drift import drift_of_tokens

FILE = "certificate.json"


class Verdict(StrEnum):
    """What a certificate says of its budget."""

    KEPT = "kept"
    BROKEN = "broken"
    INCONCLUSIVE = "inconclusive"


RULE = (
    f"{Verdict.KEPT}: the 95 % interval over rows ends within the budget. {Verdict.BROKEN}: the whole interval lies "
    f"beyond it. {Verdict.INCONCLUSIVE}: the interval contains the budget, or the rows are fewer than "
    f"{MIN_DOCUMENTS}."
)
_ADVICE = {
    Verdict.KEPT: "",
    Verdict.BROKEN: "",
    Verdict.INCONCLUSIVE: " (the interval contains the budget, or the rows are few; use more held-out rows)",
}


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What certificate.json holds."""

    budget: float
    kl: Interval
    """KL(base‖tuned) in nats per token, with its interval over rows."""
    verdict: Verdict
    rule: str = RULE
    """In words, how the verdict follows."""
    tokens: int
    """That were read."""
    lambda_: Annotated[float, Field(alias="lambda")]
    """At the end; 0 where no budget moved it."""
    step: int
    """Optimizer steps that the model has taken."""
    scale: float = 1.0
    """What the change of its weights was scaled by; version 0.1 scaled nothing."""
    base: str
    """Fingerprint of the base."""
    seed: int
    versions: dict[str, str]

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {name.rstrip("_"): value for name, value in asdict(self).items()}


def certify(context: KeepContext, *, step: int, scale: float) -> Certificate:
    """Read the model as it is now and say whether it is within the budget. All processes must call it.

    The model must be in evaluation mode, without gradients.

    Args:
        step: optimizer steps that the model has taken.
        scale: what the change of its weights was scaled by.
    """
    batch = context.certificate_rows
    if batch is None or context.keep.budget is None:
        raise ConfigError("the run has no budget to certify", "set a budget")

    def values(model: nn.Module) -> Tensor:
        return torch.cat([part.cpu() for part in drift_of_tokens(model, context, batch)])

    kl_RT = context.host.call(values)[:, MEASURES.index("kl")].double().reshape(batch.targets_BT.shape)
    sums_R, tokens, budget = kl_RT.sum(dim=1).numpy(), kl_RT.shape[1], context.keep.budget
    certificate = certificate_of(sums_R, tokens, budget, base=context.base, seed=context.host.seed)
    return replace(certificate, lambda_=context.lambda_, step=step, scale=scale)


def certificate_of(kl_R: Array, tokens: int, budget: float, *, base: str, seed: int) -> Certificate:
    """The certificate that follows from KL summed over each row, nats, of so many targets; of no training."""
    kl = bootstrap_ratio(kl_R, np.full(len(kl_R), float(tokens)), least=0.0)
    return Certificate(
        budget=budget,
        kl=kl,
        verdict=verdict(kl, budget),
        tokens=len(kl_R) * tokens,
        lambda_=0.0,
        step=0,
        base=base,
        seed=seed,
        versions=versions(),
    )


def read_certificate(folder: Path) -> Certificate:
    """The certificate in a run's folder.

    Raises:
        SourceError: it is damaged.
    """
    file = folder / FILE
    fix = f"delete {file} and resume the run: it certifies again"
    with damaged_json(file, fix):
        content = read_json(file, fix)
        # Version 0.1 wrote a sentence that began with "not sure".
        if str(content["verdict"]).startswith("not sure"):
            content["verdict"] = Verdict.INCONCLUSIVE
        return from_json(Certificate, content)


def verdict(kl: Interval, budget: float) -> Verdict:
    """`RULE` in code."""
    if kl.low is None or kl.high is None or kl.documents < MIN_DOCUMENTS:
        return Verdict.INCONCLUSIVE
    if kl.high <= budget:
        return Verdict.KEPT
    return Verdict.BROKEN if kl.low > budget else Verdict.INCONCLUSIVE


def describe(certificate: Certificate) -> str:
    """The certificate as one line."""
    kl, scale = certificate.kl, certificate.scale
    scaled = f" The change of the weights was scaled by {scale:.3f} after the last step." if scale != 1.0 else ""
    return (
        f"Budget of {certificate.budget:g} nats per token: {certificate.verdict}{_ADVICE[certificate.verdict]}. "
        f"KL(base‖tuned) {format_interval(kl.ends())} on {kl.documents} rows that were used for nothing else.{scaled}"
    )
