"""The least work of each part of keeptune: operations, bytes, and the time that a machine's limits allow.

    python benchmarks/limits.py        # the table of docs/performance.md: the loss on an H100, on paper

Only what no form of the method can leave out is counted. Operations are those of matrix products, two for each
multiplication and addition. Bytes are weights and optimizer states, read or written once a pass, a cache of keys and
values at each position, and what is stored. Activations are taken to stay in caches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

GIGA = 1e9


@dataclass(frozen=True)
class Part:
    """What must be computed and moved, one after the other parts."""

    name: str
    operations: float
    bytes: float

    def seconds(self, operations_a_second: float, bytes_a_second: float) -> float:
        """The least time: computing and moving overlap at best."""
        return max(self.operations / operations_a_second, self.bytes / bytes_a_second)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a decoder."""

    body: int
    """Weights of all layers, which multiply every position."""
    vocabulary: int
    width: int
    layers: int
    query_width: int
    """Width of a head times their number."""
    key_width: int
    """The same for keys, and for values."""

    @property
    def head(self) -> int:
        return self.vocabulary * self.width

    @classmethod
    def of(cls, model: Any) -> Shape:
        """From a transformers model with one attention form in all layers."""
        config = model.config
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            body=sum(p.numel() for p in model.get_decoder().layers.parameters()),
            vocabulary=config.vocab_size,
            width=config.hidden_size,
            layers=config.num_hidden_layers,
            query_width=width * config.num_attention_heads,
            key_width=width * config.num_key_value_heads,
        )


def products(name: str, weights: int, tokens: int, passes: int = 1, itemsize: int = 2) -> Part:
    """Matrix products of `tokens` rows with weights that are read once a pass."""
    return Part(name, 2.0 * weights * tokens * passes, float(weights * itemsize * passes))


def attention(shape: Shape, rows: int, length: int, passes: int = 1) -> Part:
    """Scores and weighted sums of causal attention over rows of `length`: half of all pairs."""
    return Part("attention", 2.0 * shape.layers * rows * length**2 * shape.query_width * passes, 0.0)


def forward_and_backward(shape: Shape, rows: int, length: int) -> list[Part]:
    """Forward, and backward to inputs and weights, of the layers and the head."""
    tokens = rows * length
    return [
        products("layers", shape.body, tokens, 3),
        attention(shape, rows, length, 3),
        products("head", shape.head, tokens, 3),
    ]


def written_gradients(shape: Shape) -> Part:
    """Each weight's gradient, fp32; with a head tied to the embedding."""
    return Part("gradients", 0.0, 4.0 * (shape.body + shape.head))


def adamw(shape: Shape) -> Part:
    """AdamW in fp32: weight and two moments read and written, the gradient written before and read."""
    return Part("AdamW", 0.0, 32.0 * (shape.body + shape.head))


def sampling(shape: Shape, rows: int, length: int) -> list[Part]:
    """`length` positions of `rows` rows one after another, weights and cache in 16 bits."""
    weights = shape.body + shape.head
    cache = 2 * shape.layers * shape.key_width * 2.0  # bytes of one position
    return [
        products("layers and head", weights, rows, length),
        Part(
            "keys and values", 2.0 * shape.layers * rows * length**2 * shape.query_width, cache * rows * length**2 / 2
        ),
        Part("drawing", 0.0, 2.0 * rows * length * shape.vocabulary),
    ]


def prefill(shape: Shape, rows: int, length: int) -> list[Part]:
    """The final hidden states of rows in one pass, and their 16 bits on the disk."""
    tokens = rows * length
    stored = Part("hidden states", 0.0, 2.0 * tokens * shape.width)
    return [products("layers once more", shape.body, tokens), attention(shape, rows, length), stored]


def two_models(shape: Shape, tokens: int) -> list[Part]:
    """Forward passes of two models with all logits; fp32 weights, as an audit loads them. Attention is left out."""
    return [
        products("layers", 2 * shape.body, tokens, itemsize=4),
        products("heads", 2 * shape.head, tokens, itemsize=4),
    ]


@dataclass(frozen=True, kw_only=True)
class Card:
    """An accelerator's data sheet."""

    name: str
    operations: float
    """Dense bfloat16 operations a second."""
    bandwidth: float
    """Bytes a second."""


H100 = Card(name="H100 SXM", operations=989e12, bandwidth=3.35e12)
# Share of the data sheet's rate that large products reach; the rest is power, clocks and tiles.
REACHED = (1.0, 0.75, 0.56)


def loss_on_a_card(tokens: int, width: int, vocabulary: int, chunk: int) -> dict[str, list[Part]]:
    """The replay loss, forward and backward, in three forms; the student's head is trained.

    `compiled`: keeptune's own, chunk by chunk, its block compiled. `kernel`: one Triton kernel over a chunk's logits
    that writes the gradient in their place, the head's gradient summed in fp32 by the products themselves. `floor`: all
    tokens in one chunk, logits never in memory.
    """
    chunks = math.ceil(tokens / chunk)
    head, logits = float(vocabulary * width), float(tokens * vocabulary)
    four = 4 * 2.0 * tokens * width * vocabulary  # both models' logits, gradients at hidden states and at the weight
    hidden = 4 * 2.0 * tokens * width
    reads = chunks * 3 * 2 * head  # the student's weight twice, the base's once
    return {
        "compiled": [
            # Logits written by products, read by the next ones: 2 bytes each, student's, teacher's, gradient's twice.
            Part("products", four, reads + hidden + 8 * logits),
            # Twice through both logits; the gradient written in fp32, read again, written in 16 bits.
            Part("block", 0.0, (2 * 4 + 4 + 4 + 2) * logits),
            # A 16-bit part written, read, and added to an fp32 sum.
            Part("head's gradient", 0.0, chunks * (2 + 2 + 4 + 4) * head),
        ],
        "kernel": [
            Part("products", four, reads + hidden + 8 * logits),
            Part("block", 0.0, (2 * 4 + 2) * logits),
            Part("head's gradient", 0.0, chunks * (4 + 4) * head),
        ],
        "floor": [Part("products", four, 3 * 2 * head + hidden), Part("head's gradient", 0.0, 4 * head)],
    }


def paper_table(card: Card = H100, tokens: int = 8192, width: int = 4096, vocabulary: int = 131_072) -> list[str]:
    """Bytes and milliseconds of each form, as Markdown."""
    rows = []
    for chunk in (384, 1536):
        for form, parts in loss_on_a_card(tokens, width, vocabulary, chunk).items():
            if form == "floor" and chunk != 384:
                continue
            moved = sum(part.bytes for part in parts)
            times = [sum(part.seconds(share * card.operations, card.bandwidth) for part in parts) for share in REACHED]
            by_part = ", ".join(f"{part.name} {part.bytes / GIGA:,.0f}" for part in parts)
            cells = (form, "all" if form == "floor" else chunk, f"{sum(p.operations for p in parts) / 1e12:.1f}",
                     f"{moved / GIGA:,.0f} ({by_part})", *(f"{1e3 * time:.0f}" for time in times))  # fmt: skip
            rows.append(f"| {' | '.join(map(str, cells))} |")
    reached = (f"ms at {share:.0%} of the rate" for share in REACHED)
    header = ("form", "tokens a chunk", "TFLOP", "GB moved", *reached)
    return [f"| {' | '.join(header)} |", "|---" * len(header) + "|", *rows]


if __name__ == "__main__":
    print("\n".join(paper_table()))
