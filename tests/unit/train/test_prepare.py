"""The steps from a trainer's model to a context, one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from keeptune.errors import ConfigError
from keeptune.models.modeling import fingerprint
from keeptune.replay.pool import ReplayPool
from keeptune.replay.teachers import CachedHidden, LiveCopy
from keeptune.train import prepare
from keeptune.train.base import Base, Where, given_model
from keeptune.train.config import KeepConfig
from keeptune.train.context import Host
from tests.helpers.models import make_model, make_tokenizer


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host that is no trainer: preparation needs facts alone."""
    return Host(
        device=torch.device("cpu"),
        dtype=torch.float32,
        rank=0,
        world=1,
        sharded=False,
        output_dir=tmp_path / "run",
        seed=3,
        learning_rate=1e-3,
        rows=2,
        accumulate=1,
        tokenizer=make_tokenizer(),
        call=lambda compute: compute(make_model()),
        task_loss=lambda: None,
        scheduler=lambda: None,
        tokens_seen=lambda: 0,
    )


SMALL: dict[str, Any] = {"replay_tokens": 160, "replay_length": 16, "drift_rows": 2}


def prepared(host: Host, model: nn.Module | None = None, **settings: Any) -> Any:
    model = model or make_model()
    return prepare.prepare(model, host, KeepConfig(**{**SMALL, **settings}), given_model(model, adapts=False))


def test_the_pool_is_named_by_what_decides_its_bytes(host: Host) -> None:
    keep, base = KeepConfig(**SMALL), Base(fingerprint="a", where=Where.MODEL)
    name = prepare.pool_folder(host, keep, base)
    assert name.parent == host.output_dir
    assert name == prepare.pool_folder(host, replace(keep, lambda_=9.0, drift_every=1, replay_tokens=320), base)
    others = [
        prepare.pool_folder(replace(host, seed=4), keep, base),
        prepare.pool_folder(replace(host, dtype=torch.bfloat16), keep, base),
        prepare.pool_folder(host, replace(keep, replay_length=32), base),
        prepare.pool_folder(host, replace(keep, objective="ntp"), base),
        prepare.pool_folder(host, keep, Base(fingerprint="b", where=Where.MODEL)),
    ]
    assert len({name, *others}) == 6


def test_rows_are_split_by_use(pool: ReplayPool) -> None:
    assert prepare.split_rows(KeepConfig(drift_rows=4), pool) == prepare.Split(
        train=16, drift=4, scale=0, certificate=0
    )
    assert prepare.split_rows(KeepConfig(drift_rows=4, budget=0.1), pool) == prepare.Split(
        train=10, drift=4, scale=2, certificate=4
    )
    with pytest.raises(ConfigError, match="20 rows, and drift_rows sets 20 of them aside"):
        prepare.split_rows(KeepConfig(drift_rows=20), pool)
    assert prepare.split_rows(KeepConfig(drift_rows=20, lambda_=0.0), pool).train == 0


def test_a_run_has_the_rows_the_teacher_and_the_head_of_its_base(host: Host) -> None:
    context = prepared(host)
    assert context.base == fingerprint(make_model())
    assert (context.pool.rows, context.train_rows) == (12, 10)
    assert isinstance(context.teacher, CachedHidden)
    assert torch.equal(context.base_head.weight_VD, make_model().lm_head.weight)
    assert context.drift_rows.hidden_BTD.shape == (2, 16, 32)
    assert (context.budget_rows, context.scale_rows, context.certificate_rows) == (None, None, None)
    assert context.start_weights == {}
    assert (context.lambda_, context.replay_rows, context.replay_length) == (1.0, 2, 16)


def test_a_budget_has_rows_of_its_own(host: Host) -> None:
    (host.output_dir.parent / "old.txt").write_text("What the model knew before it was tuned. " * 3)
    context = prepared(host, budget=0.1, drift_text=str(host.output_dir.parent / "old.txt"))
    assert context.certificate_rows.tokens_BW.shape[0] == context.keep.certificate_rows(context.pool.rows)
    assert context.scale_rows.tokens_BW.shape[0] == context.keep.scale_rows(context.pool.rows)
    first = context.train_rows + 2
    rows = context.pool.batch(torch.arange(first, context.pool.rows)).tokens_BW
    assert torch.equal(torch.cat([context.scale_rows.tokens_BW, context.certificate_rows.tokens_BW]), rows)
    assert context.start_weights.keys() == dict(make_model().named_parameters()).keys()
    assert context.lambda_ == pytest.approx(0.07 / 0.1)
    assert context.budget_rows.tokens_BW.shape == (2, 17)
    assert context.drift_rows.tokens_BW.shape == (1, 17)


def test_plain_fine_tuning_on_a_text_writes_no_pool(host: Host) -> None:
    (host.output_dir.parent / "old.txt").write_text("What the model knew before it was tuned. " * 3)
    context = prepared(host, lambda_=0.0, drift_text=str(host.output_dir.parent / "old.txt"))
    assert context.pool is None
    assert context.teacher is None or isinstance(context.teacher, LiveCopy | CachedHidden)
    assert not host.output_dir.exists()
    assert not context.require_finite
