"""One process, what FSDP may be, and the teacher's head."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from keeptune.errors import ConfigError
from keeptune.replay.ranks import together
from keeptune.train.host.distributed import all_agree, check_launch, teachers_head, zero_stage
from tests.helpers.models import make_model


def test_one_process_waits_for_nobody() -> None:
    with together() as ranks:
        assert ranks.gather(5) == [5]
    assert all_agree(True, torch.device("cpu"))
    assert not all_agree(False, torch.device("cpu"))


def fake_trainer(**plugin: object) -> SimpleNamespace:
    args = SimpleNamespace(fsdp=None, device=torch.device("cpu"), n_gpu=plugin.pop("n_gpu", 0))
    stage = plugin.pop("zero_stage", None)
    state = SimpleNamespace(
        fsdp_plugin=SimpleNamespace(**plugin), deepspeed_plugin=stage and SimpleNamespace(zero_stage=stage)
    )
    return SimpleNamespace(
        is_deepspeed_enabled=stage is not None,
        is_fsdp_enabled=stage is None,
        accelerator=SimpleNamespace(state=state),
        args=args,
        model=make_model(),
    )


def test_fsdp_that_cannot_work_is_refused() -> None:
    check_launch(fake_trainer(fsdp_version=2, cpu_ram_efficient_loading=False))
    with pytest.raises(ConfigError, match="without the base's weights") as caught:
        check_launch(fake_trainer(fsdp_version=2, cpu_ram_efficient_loading=True))
    assert "set fsdp_cpu_ram_efficient_loading to false" in caught.value.fix
    assert "keeptune tune --shard" in caught.value.fix
    with pytest.raises(ConfigError, match="DataParallel"):
        check_launch(fake_trainer(n_gpu=2))
    check_launch(fake_trainer(zero_stage=2))
    with pytest.raises(ConfigError, match="ZeRO-3 gathers weights only inside its own engine"):
        check_launch(fake_trainer(zero_stage=3))
    with pytest.raises(ConfigError, match="FSDP1"):
        check_launch(fake_trainer(fsdp_version=1, cpu_ram_efficient_loading=False))


def test_the_stage_is_read_from_a_configuration_or_its_file() -> None:
    assert zero_stage(str(Path(__file__).parents[4] / "recipes" / "zero2.json")) == 2
    assert zero_stage({"zero_optimization": {"stage": 3}}) == 3
    for other in ("nowhere.json", {}, {"zero_optimization": {}}, None):
        assert zero_stage(other) == 0


def test_the_teachers_head_is_copied_where_it_would_change() -> None:
    model = make_model()
    host = SimpleNamespace(sharded=True, dtype=torch.float32, device=torch.device("cpu"))
    sharded = teachers_head(model, host).weight_VD
    host.sharded = False
    tuned = teachers_head(model, host).weight_VD
    model.requires_grad_(False)
    assert teachers_head(model, host).weight_VD is model.lm_head.weight
    for copy in (sharded, tuned):
        assert torch.equal(copy, model.lm_head.weight)
        assert copy.data_ptr() != model.lm_head.weight.data_ptr()
