"""The torch engine with a pause before each shard, so that a kill falls anywhere between start and end."""

from __future__ import annotations

import time

from torch import Tensor

from keeptune.replay.engines.torch import TorchEngine
from keeptune.replay.openings import OpeningIds

PAUSE = 0.4


class SlowEngine(TorchEngine):
    """Writes the torch engine's rows."""

    def sample(self, rows: int, length: int, opening: OpeningIds, seed: int) -> Tensor:
        time.sleep(PAUSE)
        return super().sample(rows, length, opening, seed)
