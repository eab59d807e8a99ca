"""What tuning changed: the tensors of base and tuned model side by side, and any model between them, made in place.

One model is in memory. The weights of both ends lie in safetensors files that are mapped into memory, so that the
system may drop their pages; a candidate is written into the one model, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from keeptune.models.adapters import causal_model
from keeptune.storage import atomic_file

Make = Callable[[str, Tensor, Tensor], Tensor]
"""(name, the base's tensor, the tuned model's) → the candidate's, fp32."""


class StoredTensors(Mapping[str, Tensor]):
    """Tensors of a safetensors file by name, read from disk when they are asked for; always in fp32 or wider.

    `aliases` are further names of a stored tensor, as a tied head has.
    """

    def __init__(self, file: Path, aliases: Mapping[str, str] | None = None) -> None:
        self._file, self._aliases = safe_open(file, framework="pt"), dict(aliases or {})
        self._names = [*tuple(self._file.keys()), *self._aliases]

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(self._aliases.get(name, name))
        return tensor.to(torch.promote_types(tensor.dtype, torch.float32)) if tensor.is_floating_point() else tensor

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def store(tensors: Mapping[str, Tensor], file: Path, narrow: torch.dtype = torch.float32) -> StoredTensors:
    """Write tensors to a file, atomically, each in `narrow` where that loses nothing; tied ones once."""
    kept: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[int, torch.Size], str] = {}
    for name, tensor in tensors.items():
        key = (tensor.data_ptr(), tensor.shape)
        if tensor.numel() and key in first:
            aliases[name] = first[key]
            continue
        first[key] = name
        kept[name] = _narrowed(tensor.detach(), narrow).cpu().contiguous()
    with atomic_file(file) as temporary:
        save_file(kept, temporary)
    return StoredTensors(file, aliases)


def _narrowed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if not tensor.is_floating_point() or dtype.itemsize >= tensor.dtype.itemsize:
        return tensor
    cast = tensor.to(dtype)
    return cast if torch.equal(cast.to(tensor.dtype), tensor) else tensor


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters and saved buffers by name, in its own memory; tied ones under each of their names."""
    state: dict[str, Tensor] = causal_model(model).state_dict()
    return state


@dataclass(frozen=True, kw_only=True)
class Change:
    """The tensors that differ between base and tuned model, and the model in which candidates are made."""

    model: nn.Module
    base: Mapping[str, Tensor]
    tuned: Mapping[str, Tensor]
    names: tuple[str, ...]
    """The tensors that differ, each once."""
    beside: bool = False
    """Whether the tensors are factors of an adapter beside a quantized base, whose weights cannot be changed."""

    @torch.no_grad()
    def place(self, make: Make) -> None:
        """Write a candidate into the model."""
        own = dict(self.model.named_parameters()) if self.beside else state_of(self.model)
        for name in self.names:
            own[name].copy_(make(name, self.base[name], self.tuned[name]))

    def place_base(self) -> None:
        """Make the model the base, bit for bit."""
        self.place(lambda name, base, tuned: base)

    def place_tuned(self) -> None:
        """Make the model the tuned one, bit for bit."""
        self.place(lambda name, base, tuned: tuned)

    @torch.no_grad()
    def round_to(self, dtype: torch.dtype | None) -> None:
        """Round the candidate as it will be when its weights are saved in `dtype`."""
        if dtype is None or dtype.itemsize >= 4:
            return
        own = state_of(self.model)
        for name in self.names:
            if own[name].is_floating_point():
                own[name].copy_(own[name].to(dtype))
