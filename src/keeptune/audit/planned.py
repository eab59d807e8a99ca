"""What an audit would do, and take: minutes and memory from what the sections say of themselves and a short probe.

Time is tokens divided by speeds that are measured: both models read a few rows as an audit reads, write a few answers
and the base samples a few rows. Memory is the process before the models, their weights as they are stored, each shared
tensor once, and what the largest of the sections works with.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from keeptune.audit.answers import ROWS_TOGETHER, answer
from keeptune.audit.drift import Texts
from keeptune.audit.meter import BATCH_TOKENS, measure
from keeptune.audit.run import Chosen, choose, samples_of
from keeptune.audit.section import AnySection, Cost
from keeptune.audit.settings import SECTIONS, AuditSettings
from keeptune.audit.texts import SELF
from keeptune.audit.where.layers import WINDOW_TOKENS, WINDOWS, decoder_layers
from keeptune.data.tokens import EncodedRow
from keeptune.models.loading import load_model, load_tuned
from keeptune.models.modeling import fingerprint, training_dtype
from keeptune.models.quantized import packed_buffers, stored_tensors
from keeptune.models.vocabulary import outputs_of
from keeptune.objective.drift import CPU_TILING
from keeptune.replay.engines.torch import TorchEngine
from keeptune.replay.sampled import LOGITS_AT_ONCE, PROOF_TENSORS
from keeptune.report.table import Cell, Column, Table, count, left, number, text
from keeptune.system import used_bytes

_ROWS, _LENGTH, _ANSWERS, _NEW, _SAMPLED = 4, 128, 16, 6, 6
# Tokens that the base reads to choose how its own text opens, if no earlier audit has: candidates, each with probes.
_OPENINGS = 12_000
MB = 1e6


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Tokens a second on this machine, and how they were found."""

    read: float
    """By both models together, with every measure of drift."""
    written: float
    """As answers, by both models one after the other."""
    sampled: float
    """As its own text, by the base."""
    layers: int
    seconds: float
    """What the probe took."""

    def seconds_of(self, cost: Cost) -> float:
        """What a section takes. A training step costs three passes, of each model, in full precision."""
        read = cost.read + self.layers * cost.read_a_layer / 2 + 6 * cost.trained
        return read / self.read + cost.written / self.written + cost.sampled / self.sampled


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What would be done."""

    chosen: list[Chosen]
    costs: dict[str, Cost]
    """Of every section that is asked."""
    speed: Speed
    load_seconds: float
    opening_seconds: float
    process: int
    """Bytes before the models were loaded."""
    weights: int
    working: dict[str, int]
    """Bytes of each section."""

    @property
    def seconds(self) -> float:
        """Of the whole audit."""
        sections = sum(self.speed.seconds_of(cost) for cost in self.costs.values())
        return self.load_seconds + self.opening_seconds + sections

    @property
    def peak(self) -> int:
        """Bytes of the whole audit."""
        return self.process + self.weights + max(self.working.values(), default=0)

    def table(self) -> Table:
        """A row a section."""
        rows: list[dict[Column, Cell]] = []
        for one in self.chosen:
            name = one.section.name
            cost = self.costs.get(name, Cost())
            read = cost.read + self.speed.layers * cost.read_a_layer
            rows.append(
                {
                    left("section"): text(name),
                    Column("what", left=True, page_only=True): text(one.section.title),
                    Column("items", unit="at most"): count(cost.items),
                    Column("tokens read", unit="by each model"): count(read),
                    Column("tokens written", unit="by the base"): count(cost.written + cost.sampled),
                    Column("minutes", unit="about"): number(self.speed.seconds_of(cost) / 60, ".1f"),
                    Column("memory", unit="MB, beside the models"): count(round(self.working.get(name, 0) / MB)),
                    left("left out because"): text(one.reason),
                }
            )
        return Table.of("plan", "What the audit would do", rows)

    def lines(self) -> list[str]:
        """The sums, and how they were estimated."""
        speed = self.speed
        return [
            f"About {self.seconds / 60:.1f} minutes and {self.peak / MB:,.0f} MB of memory.",
            f"Time: a probe of {speed.seconds:.0f} s. Both models together read {speed.read:,.0f} tokens a second and "
            f"write {speed.written:,.0f}, one after the other; the base samples {speed.sampled:,.0f}. Loading takes "
            f"{self.load_seconds:.0f} s, choosing how the base's own text opens {self.opening_seconds:.0f} s. Answers "
            "that end early, and steps that are finished already, take less; other work on the machine makes it more.",
            f"Memory: {self.process / MB:,.0f} MB of the process before the models, {self.weights / MB:,.0f} MB of "
            "weights, and what the largest section works with.",
        ]


def plan(settings: AuditSettings, sections: Sequence[AnySection] = SECTIONS) -> Plan:
    """Load the models, probe them for a few seconds, and say what the audit would take; nothing is written.

    Raises:
        ConfigError, SourceError: as `audit` does for settings, models and sources that do not fit.
    """
    chosen = choose(settings, sections)
    start, process = time.monotonic(), used_bytes()
    base = load_model(settings.base)
    tuned = load_tuned(settings.tuned[0], base) if settings.recovery is None else load_model(settings.tuned[0])
    loading = time.monotonic() - start
    speed = probe(base, tuned)
    costs = {one.section.name: one.asked.cost() for one in chosen if one.asked}
    reads = [one.section.name for one in chosen if one.asked and one.section.reads_texts and one.section.compares]
    if reads and Texts.name not in reads:
        costs[reads[0]] += Texts(settings).cost()
    fresh = (
        any(cost.sampled for cost in costs.values()) and not (samples_of(settings, fingerprint(base)) / SELF).is_dir()
    )
    weights = weight_bytes(base, tuned)
    own = weights - weight_bytes(base)
    return Plan(
        chosen=chosen,
        costs=costs,
        speed=speed,
        load_seconds=loading,
        opening_seconds=_OPENINGS / 2 / speed.read if fresh else 0.0,
        process=process,
        weights=weights,
        working={name: working_bytes(base, own, cost, settings.max_length) for name, cost in costs.items()},
    )


def probe(base: PreTrainedModel, tuned: PreTrainedModel) -> Speed:
    """Measure the speeds on a few rows of arbitrary tokens: what they are does not matter for time."""
    begun = time.monotonic()
    generator = torch.Generator().manual_seed(0)
    ids: list[list[int]] = torch.randint(outputs_of(base), (_ANSWERS, _LENGTH), generator=generator).tolist()
    rows: list[EncodedRow] = [
        {"input_ids": row, "labels": row, "document": str(place)} for place, row in enumerate(ids[:_ROWS])
    ]
    measure(base, tuned, rows[:1], label="Probing")  # warm
    start = time.monotonic()
    measure(base, tuned, rows, label="Probing")
    read = _ROWS * _LENGTH / (time.monotonic() - start)
    start, written = time.monotonic(), 0
    for model in (base, tuned):
        written += sum(map(len, answer(model, [row[:16] for row in ids], _NEW, "Probing answers")))
    answered = max(written, _ANSWERS) / 2 / (time.monotonic() - start)
    engine = TorchEngine(base, dtype=training_dtype(base), rows=_ANSWERS, temperature=1.0)
    start = time.monotonic()
    engine.sample(_ANSWERS, _SAMPLED, [0], 0)
    sampled = _ANSWERS * _SAMPLED / (time.monotonic() - start)
    layers = len(decoder_layers(tuned) or ())
    return Speed(read=read, written=answered, sampled=sampled, layers=layers, seconds=time.monotonic() - begun)


def weight_bytes(*models: PreTrainedModel) -> int:
    """Bytes of the models' weights as they are stored, those that two models share once."""
    parts: dict[int, Tensor] = {}
    for model in models:
        for module in model.modules():
            for weight in module.parameters(recurse=False):
                parts |= {part.data_ptr(): part for part in stored_tensors(weight, module).values()}
        parts |= {buffer.data_ptr(): buffer for _, buffer in packed_buffers(model)}
    return sum(part.numel() * part.element_size() for part in parts.values())


def working_bytes(base: PreTrainedModel, own: int, cost: Cost, length: int) -> int:
    """Bytes that a section works with beside the weights, by what it does and by the shape of the model.

    `own` are the bytes of the tuned model's own weights: it is not loaded yet while the base samples its text.
    """
    config, kinds = base.config.get_text_config(), [0]
    width, words = config.hidden_size, outputs_of(base)
    inner = getattr(config, "intermediate_size", None) or 4 * width
    inner = max(inner) if isinstance(inner, list | tuple) else inner
    if cost.read:
        tile = CPU_TILING.tile_words * (4 * CPU_TILING.chunk_tokens + 6 * width)
        kinds.append(BATCH_TOKENS * (4 * 5 * width + 4 * 3 * inner) + 3 * tile)
    if cost.sampled:  # a copy in 16 bits, the same packed, and the proof that samples follow the base
        kinds.append(4 * base.num_parameters() + PROOF_TENSORS * 4 * LOGITS_AT_ONCE + kinds[-1] - own)
    if cost.written:
        cache = 8 * config.num_hidden_layers * width * 2 * _LENGTH
        kinds.append(ROWS_TOGETHER * (cache + 12 * words))
    if cost.read_a_layer:
        kinds.append(max(kinds) + 4 * config.num_hidden_layers * WINDOWS * WINDOW_TOKENS * width)
    if cost.trained:
        kinds.append(2 * 12 * base.num_parameters() + 4 * length * words * 8)
    return max(kinds)
