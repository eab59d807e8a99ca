"""TRL's private names that training uses: these tests fail when one of them moves or changes its meaning."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import trl
from torch import nn

from keeptune.errors import ConfigError
from keeptune.train.host.compat import _ForwardRedirection, require_current_parents, total_train_tokens, trl_parents
from keeptune.train.mixin import KeepMixin
from keeptune.train.trainers import KeepSFTTrainer
from tests.helpers.trainers import KINDS


class Doubles(nn.Module):
    """A wrapper, as DDP is one."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return 2 * self.inner(given)


def test_a_call_is_redirected_through_the_wrappers_forward() -> None:
    inner = nn.Linear(3, 3)
    wrapped, given = Doubles(inner), torch.randn(2, 3)
    assert torch.equal(_ForwardRedirection()(wrapped, inner, lambda x: x + 1, given), 2 * (given + 1))
    assert torch.equal(wrapped(given), 2 * inner(given)), "the module's own forward is back"


def test_trainers_count_their_tokens(tmp_path: Path) -> None:
    counted = {kind: KINDS[kind].make(tmp_path / kind, None) for kind in ("SFT", "DPO", "Trainer")}
    for trainer in counted.values():
        assert total_train_tokens(trainer) == 0
        trainer.train()
    assert total_train_tokens(counted["SFT"]) == 3 * 4 * 24
    assert total_train_tokens(counted["DPO"]) > 0
    assert total_train_tokens(counted["Trainer"]) == 0


def test_a_trainer_whose_parent_trl_no_longer_exports_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Replaced(trl.SFTTrainer):
        """As importing unsloth puts one in the place of TRL's."""

    monkeypatch.setattr(trl, "SFTTrainer", Replaced)
    with pytest.raises(ConfigError, match=r"trl\.SFTTrainer was replaced"):
        KeepSFTTrainer("model")

    class Early(KeepMixin, Replaced):
        """Defined after the replacement."""

    require_current_parents(Early, trl_parents(Early))
