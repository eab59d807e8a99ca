"""torchvision beside torch's CPU build: PyPI's torchvision is compiled for CUDA, so its operators do not load.

Processors of images and videos use none of them, but importing torchvision gives shapes to two, which must exist.
"""

from __future__ import annotations

import torch

# Kept: an operator lives as long as the library that defines it.
_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def declare_operators() -> None:
    """Declare what is missing; to be called before torchvision is imported."""
    if torch.version.cuda is None:
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                _LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
