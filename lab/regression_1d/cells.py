"""A function learned on the left, then another on the right: what happens on the left, with and without KL?

An ensemble of small networks fits the old data. Then each member fits the new data, with loss = squared error + λ · KL.
The KL is between predictive distributions on the old inputs, N(f₀(x), σ²) of the member before and N(f(x), σ²) of the
member now, so it is (f − f₀)² / 2σ². It stands for the KL over a vocabulary in `keeptune.objective`. The csv has every
member's function, and the data.

Shapes: M members, N points, G points of the grid, I inputs and O outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.grid import Cell, Row
from keeptune.log import track

OLD, NEW = (-3.2, -0.08), (0.28, 3.2)
_POINTS = {"old": 82, "new": 44}
_NOISE = {"old": 0.02, "new": 0.045}
_DATA_SEED = {"old": 0, "new": 1}
_WIDTHS = (1, 48, 48, 24, 1)
_GRID_G1 = torch.linspace(-3.4, 3.4, 69)[:, None]
_MAX_GRAD_NORM = 10.0

Layers = list[tuple[Tensor, Tensor]]


def run_cell(cell: Cell, home: Path) -> dict[str, Any]:
    """Fit the old data, then the new data. cell.json keeps both functions of every member on the grid."""
    torch.manual_seed(cell["seed"])
    (x_old, y_old), (x_new, y_new) = data("old", old_function, OLD), data("new", new_function, NEW)
    layers = make_layers(cell["members"])

    def fit_old() -> Tensor:
        return squared_error(layers, x_old, y_old, _NOISE["old"])

    descend(fit_old, layers, cell["steps_old"], cell["learning_rate"], "the old data")
    with torch.no_grad():
        before_MG, held_MN = predict(layers, _GRID_G1), predict(layers, x_old)

    def fit_new() -> Tensor:
        kl_MN = (predict(layers, x_old) - held_MN).square() / (2 * cell["sigma"] ** 2)
        # A sum over members: none of them sees another.
        return squared_error(layers, x_new, y_new, _NOISE["new"]) + cell["lambda_"] * kl_MN.mean(dim=1).sum()

    descend(fit_new, layers, cell["steps_new"], cell["learning_rate"], f"the new data, lambda {cell['lambda_']:g}")
    with torch.no_grad():
        after_MG = predict(layers, _GRID_G1)
    return {
        "before": before_MG.tolist(),
        "after": after_MG.tolist(),
        "data": {"old": [x_old[:, 0].tolist(), y_old.tolist()], "new": [x_new[:, 0].tolist(), y_new.tolist()]},
    }


def old_function(x: Tensor) -> Tensor:
    """A bump and a valley on a gentle slope, as in the paper's repository."""
    bump, valley = 0.52 * (-(((x + 1.18) / 0.22) ** 2)).exp(), 0.44 * (-(((x + 2.02) / 0.31) ** 2)).exp()
    return -0.82 + 0.05 * (x + 2.0) + bump - valley + 0.12 * (2.6 * (x + 1.6)).sin()


def new_function(x: Tensor) -> Tensor:
    """Two waves on a slow one, as in the paper's repository."""
    z = x - 0.45
    return 1.25 * (5.8 * z).sin() + 0.85 * (10.8 * z).sin() + 0.45 * (2.4 * z).cos()


def data(side: str, function: Callable[[Tensor], Tensor], ends: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Inputs [N, 1], uniform between the ends, and noisy values [N]; the same at every call."""
    generator = torch.Generator().manual_seed(_DATA_SEED[side])
    x_N = ends[0] + (ends[1] - ends[0]) * torch.rand(_POINTS[side], generator=generator)
    return x_N[:, None], function(x_N) + _NOISE[side] * torch.randn(_POINTS[side], generator=generator)


def make_layers(members: int) -> Layers:
    """Weights [M, I, O] and biases [M, 1, O], drawn for every member."""
    layers = []
    for inputs, outputs in pairwise(_WIDTHS):
        # The first layer's kinks have to lie all over the inputs.
        scale = 2.0 if inputs == 1 else inputs**-0.5
        weight, bias = torch.randn(members, inputs, outputs) * scale, torch.randn(members, 1, outputs) * scale
        layers.append((weight.requires_grad_(), bias.requires_grad_()))
    return layers


def predict(layers: Layers, x_N1: Tensor) -> Tensor:
    """Every member's function at the points, [M, N]."""
    hidden_MNO = x_N1.expand(len(layers[0][0]), -1, -1)
    for number, (weight_MIO, bias_M1O) in enumerate(layers):
        hidden_MNO = torch.baddbmm(bias_M1O, hidden_MNO, weight_MIO)
        if number < len(layers) - 1:
            hidden_MNO = hidden_MNO.tanh()
    return hidden_MNO[:, :, 0]


def squared_error(layers: Layers, x_N1: Tensor, y_N: Tensor, noise: float) -> Tensor:
    """Mean over points and sum over members of (f − y)² / 2 noise²: the negative log likelihood up to a constant."""
    return ((predict(layers, x_N1) - y_N) / noise).square().mean(dim=1).sum() / 2


def descend(loss: Callable[[], Tensor], layers: Layers, steps: int, rate: float, label: str) -> None:
    """Adam on all members at once, with a cosine schedule down to 0; gradients are clipped per member."""
    parameters = [tensor for layer in layers for tensor in layer]
    optimizer = torch.optim.Adam(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with track(f"Fitting {label}", steps, "steps") as progress:
        for _ in range(steps):
            optimizer.zero_grad()
            loss().backward()
            norm_M = torch.stack([p.grad.flatten(1).norm(dim=1) for p in parameters if p.grad is not None]).norm(dim=0)
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad *= (_MAX_GRAD_NORM / norm_M).clamp(max=1.0)[:, None, None]
            optimizer.step()
            schedule.step()
            progress.advance()


def cell_rows(cell: Cell, kept: dict[str, Any], home: Path) -> Iterator[Row]:
    """Every member's function before and after, and in one cell the data, which all cells share."""
    for member, (before_G, after_G) in enumerate(zip(kept["before"], kept["after"], strict=True)):
        for x, before, after in zip(_GRID_G1[:, 0].tolist(), before_G, after_G, strict=True):
            yield _row("function", cell, member, x, before, after)
    if cell["lambda_"] == 0.0:
        for side, (x_N, y_N) in kept["data"].items():
            for x, y in zip(x_N, y_N, strict=True):
                yield _row(f"{side} data", cell, None, x, y, None)


def _row(kind: str, cell: Cell, member: int | None, x: float, before: float, after: float | None) -> Row:
    after = None if after is None else round(after, 5)
    row = {"kind": kind, "lambda": cell["lambda_"], "member": member, "x": round(x, 4)}
    return {**row, "before": round(before, 5), "after": after}
