"""Which layer the drift comes from: each layer's output compared, put back, and each layer itself put back.

Putting back a layer's output leaves what the layers after it make of their own; putting back the layer leaves what all
the others make. The KLs of the layers do not add up, for each layer works on what the ones before it made.

Shapes: B windows, T positions, N target tokens, D width, W windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from keeptune.audit.meter import MEASURES, pad_rows, read_head, target_states, token_drift
from keeptune.audit.verdict import part
from keeptune.data.tokens import EncodedRow
from keeptune.log import track
from keeptune.models.adapters import base_state, causal_model
from keeptune.models.anatomy import idle_modules
from keeptune.models.modeling import training_dtype
from keeptune.stats import Array, Interval, bootstrap_ratio

WINDOWS = 12
WINDOW_TOKENS = 96


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer; nats per token but for `moved`, with intervals over documents."""

    layer: int
    """From 0."""
    moved: Interval
    """‖tuned − base‖ / ‖base‖ of its output, mean over the tokens."""
    patched: Interval
    """The KL left when its output is the base's."""
    restored: Interval
    """The KL left when the layer is the base's."""
    repaired: Interval
    """How much less that is."""


@dataclass(frozen=True, kw_only=True)
class LayerProfile:
    """Where in a model the drift on a text arises, measured on a sample of it."""

    text: str
    windows: int = 0
    tokens: int = 0
    """Targets."""
    kl: Interval | None = None
    rest_restored: Interval | None = None
    """The KL left when all but the layers (embeddings, final norm, head) are the base's."""
    layers: list[Layer] = field(default_factory=list)
    unavailable: str = ""
    """Why layers cannot be compared; then there is nothing else."""


def layer_profile(base: nn.Module, tuned: nn.Module, rows: list[EncodedRow], text: str) -> LayerProfile:
    """Where in the model the drift on a text arises, measured on a sample.

    Args:
        base, tuned: causal models of one shape over the same vocabulary, left as they are.
        rows: as `measure` takes them; the first `WINDOW_TOKENS` tokens of one window of each of `WINDOWS` documents at
            most, evenly spaced, are read.
        text: its name.
    """
    cut = slice(WINDOW_TOKENS)
    sample = part([{**row, "input_ids": row["input_ids"][cut], "labels": row["labels"][cut]} for row in rows], WINDOWS)
    base_layers, tuned_layers = decoder_layers(base), decoder_layers(tuned)
    if not sample:
        return LayerProfile(text=text, unavailable=f"no window has a target among its first {WINDOW_TOKENS} tokens")
    if base_layers is None or tuned_layers is None:
        why = "a model has no list of as many layers as its configuration says"
        return LayerProfile(text=text, unavailable=why)
    if _shapes(base_layers) != _shapes(tuned_layers):
        return LayerProfile(text=text, unavailable="the layers of the two models differ in shape")
    with track(f"Comparing layers on {text}", 2 * len(base_layers) + 3, "passes") as progress:
        reading = _Reading((base, base_layers), (tuned, tuned_layers), sample, progress.advance)
        return LayerProfile(
            text=text,
            windows=len(sample),
            tokens=int(reading.tokens_W.sum()),
            kl=reading.mean(reading.kl_W),
            layers=[reading.of_layer(layer) for layer in range(len(base_layers))],
            rest_restored=reading.rest_restored(),
        )


def decoder_layers(model: nn.Module) -> nn.ModuleList | None:
    """The decoder's list of layers: the outermost that is as long as the configuration says; None without one."""
    causal = causal_model(model)
    config = causal.config.get_text_config()
    # A layer of LongCat counts as two in the first.
    counts = [getattr(config, name, None) for name in ("num_hidden_layers", "num_layers")]
    idle = tuple(f"{name}." for name in idle_modules(causal))
    # Parents come before what they contain: a list of experts stands inside a layer. Vision towers have lists too.
    lists = (m for name, m in causal.named_modules() if isinstance(m, nn.ModuleList) and not name.startswith(idle))
    return next((layers for layers in lists if len(layers) in counts), None)


@contextmanager
def swapped(layers: nn.ModuleList, others: Mapping[int, nn.Module]) -> Iterator[None]:
    """Other layers stand at these places while the block runs, whatever happens in it."""
    own = {index: layers[index] for index in others}
    try:
        for index, other in others.items():
            layers[index] = other
        yield
    finally:
        for index, layer in own.items():
            layers[index] = layer


@contextmanager
def outputs(layers: Mapping[int, nn.Module], see: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
    """Call `see(layer, hidden states [B, T, D])` after each of the layers; what it returns, if anything, replaces them.

    The hooks are gone after the block, whatever happens in it.
    """

    def hook_of(index: int) -> Callable[..., Any]:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> Any:
            # Some layers hand on a tuple, of which the hidden states are the first.
            new = see(index, output if isinstance(output, Tensor) else output[0])
            return new if new is None or isinstance(output, Tensor) else (new, *output[1:])

        return hook

    handles = [layer.register_forward_hook(hook_of(index)) for index, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Reading:
    """What both models make of the sample, and what comes of putting parts of the base into the tuned one."""

    def __init__(
        self,
        base: tuple[nn.Module, nn.ModuleList],
        tuned: tuple[nn.Module, nn.ModuleList],
        sample: list[EncodedRow],
        advance: Callable[[], None],
    ) -> None:
        (self.base, self.base_layers), (self.tuned, self.tuned_layers), self.advance = base, tuned, advance
        self.base.eval()
        self.tuned.eval()
        self.input_BT, label_BT = pad_rows(sample)
        self.mask_BT = label_BT[:, 1:] != -100
        self.tokens_W = self.mask_BT.sum(dim=1).double().numpy()
        self.dtype = torch.promote_types(training_dtype(self.tuned), training_dtype(self.base))
        self.output_L: dict[int, Tensor] = {}
        with outputs(dict(enumerate(self.base_layers)), self.output_L.__setitem__):
            self.base_ND = target_states(self.base, self.input_BT, self.mask_BT)
        self.target_N = label_BT[:, 1:][self.mask_BT].to(self.base_ND.device)
        self.moved_LW: dict[int, Array] = {}
        with outputs(dict(enumerate(self.tuned_layers)), self._compare):
            self.kl_W = self._kl(self.tuned)
        advance()

    def of_layer(self, layer: int) -> Layer:
        """One of the layers."""
        with outputs({layer: self.tuned_layers[layer]}, lambda at, _: self.output_L[at]):
            patched_W = self._kl(self.tuned)
        with swapped(self.tuned_layers, {layer: self.base_layers[layer]}):
            restored_W = self._kl(self.tuned)
        return Layer(
            layer=layer,
            moved=self.mean(self.moved_LW[layer]),
            patched=self.mean(patched_W),
            restored=self.mean(restored_W),
            repaired=self.mean(self.kl_W - restored_W),
        )

    def rest_restored(self) -> Interval:
        """The KL left when only the layers are the tuned model's."""
        with swapped(self.base_layers, dict(enumerate(self.tuned_layers))):
            return self.mean(self._kl(self.base))

    def mean(self, sums_W: Array) -> Interval:
        """Per token with its interval over documents, each of which has one window."""
        return bootstrap_ratio(sums_W, self.tokens_W, least=0.0)

    def _kl(self, model: nn.Module) -> Array:
        """KL of a model, as it is now, to the base, summed by window."""
        states_ND = target_states(model, self.input_BT, self.mask_BT)
        heads = read_head(model), read_head(self.base)
        values_NM = token_drift(states_ND, heads[0], self.base_ND, heads[1], self.target_N, self.dtype)
        self.advance()
        return self._by_window(values_NM[:, MEASURES.index("kl")])

    def _compare(self, layer: int, now_BTD: Tensor) -> None:
        mask_BT = self.mask_BT.to(now_BTD.device)
        base_ND, now_ND = (
            _by_position(states, mask_BT)[mask_BT].double() for states in (self.output_L[layer], now_BTD)
        )
        # A padding token that starts documents may have an embedding of zeros, which no layer moves.
        length_N = base_ND.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        self.moved_LW[layer] = self._by_window((now_ND - base_ND).norm(dim=1) / length_N)

    def _by_window(self, values_N: Tensor) -> Array:
        window_N = np.repeat(np.arange(len(self.tokens_W)), self.tokens_W.astype(int))
        return np.bincount(window_N, weights=values_N.cpu().numpy()).astype(np.float64)


def _by_position(states: Tensor, mask_BT: Tensor) -> Tensor:
    """A layer's output as [B, T, D]; several streams of it, before or after these axes, become one of more width."""
    if states.ndim == 4 and states.shape[:2] != mask_BT.shape:
        states = states.movedim(0, 2)
    return states.flatten(2)


def _shapes(layers: nn.ModuleList) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in base_state(layers)}
