"""The card saved with a tuned model: what it is, and what it forgot."""

from __future__ import annotations

import torch

from keeptune.runs.hub import card_metadata
from keeptune.runs.settings import TuneSettings
from keeptune.train.budget.certificate import Certificate, describe
from keeptune.train.readings import Reading


def card(
    settings: TuneSettings,
    first: Reading,
    last: Reading,
    certificate: Certificate | None = None,
    pool_text: str = "self",
    bad_rows: int = 0,
    base: str | None = None,
    dtype: torch.dtype = torch.float32,
    quantization: str | None = None,
) -> str:
    """Markdown from the first and the last reading of the run, the certificate of its budget, and its pool's text.

    `bad_rows` counts the rows that could not be read; `base` is where the base is saved, if not where it was named;
    `dtype` is that of the saved weights, `quantization` the base's in words.
    """
    base = base or settings.model
    merged = "" if base == settings.model else f"\nThe base is {settings.model}, merged and saved as `{base}`.\n"
    own = pool_text == "self"
    replay = "self-generated replay" if own else f"replay ({pool_text})"
    method = f"{replay}, {settings.objective} term, λ = {settings.lambda_:g}"
    if settings.lambda_ == 0.0:
        method = "plain fine-tuning (λ = 0)"
    if certificate is not None:
        method = f"{replay}, λ steered from {settings.lambda_:g} to {certificate.lambda_:.3g} by a budget"
    certified = "" if certificate is None else f"\n{describe(certificate)}\n"
    saved = f"Saved in {str(dtype).removeprefix('torch.')}."
    if quantization is not None:
        saved += f" Trained on the base quantized with {quantization}: both columns are measured on that base."
    tuned = f"rsLoRA, rank {settings.lora}" if settings.lora else "All weights"
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items())
    steps = f"{last['step']} steps"
    if "model_step" in last:
        steps = f"{last['model_step']} of {steps} (the best model of the run)"
    rise = last["L_f"] - last["L_f_base"]
    on = "the base's own text" if own else f"replay text ({pool_text})"
    read = f"{settings.drift_rows} {'sampled rows' if own else 'rows'} that training never saw"
    if settings.drift_text is not None:
        on, read = settings.drift_text, f"{settings.drift_rows} openings of documents at most"
    left_out = f"\nRows of the data that could not be read and were left out: {bad_rows}.\n" if bad_rows else ""
    return f"""---
{card_metadata(settings, last, on)}
---

# {settings.model}, fine-tuned on {settings.data}

{tuned} ({last["P"]:,} parameters), {steps}, {method}.

| nats per token | base | tuned |
|---|---|---|
| task loss, {last["L_ft_on"]} documents | {_number(first["L_ft"])} | {_number(last["L_ft"])} |
| drift: KL(base‖tuned) on {on} | 0 | {last["KL"]:.4f} |
| forgetting: L_f, cross-entropy against the base's favourite token | {last["L_f_base"]:.4f} | {last["L_f"]:.4f} |
{certified}{merged}{left_out}
L_f rose by {rise:+.4f} nats per token. Read on {on}: {read}.
{saved}
Seed {settings.seed}; {versions}. Measure it on other text with `keeptune audit BASE TUNED --text NAME=SOURCE`.
Where that is too much forgotten, `keeptune repair BASE TUNED --budget NATS` gives most of it back, without the data.
"""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
