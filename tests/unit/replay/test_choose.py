"""Which teacher is taken: what the pool stores, what was asked for, what fits; and one entry is a new teacher."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from keeptune.errors import ConfigError
from keeptune.objective import Target, TopKTarget
from keeptune.replay.batch import ReplayBatch
from keeptune.replay.choose import TeacherChoice, choose_teacher
from keeptune.replay.manifest import PoolSettings, Predictions
from keeptune.replay.pool import ReplayPool
from keeptune.replay.teachers import TEACHERS, NamedTeacher, TeacherOptions, make_teacher
from tests.helpers.models import make_model

MIB = 2**20


def options(model: Any = None, disk: int = 10**9, memory: int = 10**9, **settings: Any) -> TeacherOptions:
    return TeacherOptions(
        **{
            "model": model or make_model(), "dtype": torch.float32, "tokens": 10_000, "top_k": 4, "disk_free": disk,
            "memory_free": memory, "adapter_mismatch": None, **settings,
        }
    )  # fmt: skip


def adapted(**settings: Any) -> Any:
    return get_peft_model(make_model(), LoraConfig(r=4, target_modules="all-linear", **settings))


def pool_of(predictions: Predictions, tmp_path: Any = None) -> ReplayPool:
    """A pool by its settings alone, which are all that a choice reads."""
    settings = PoolSettings(
        base="", start_token=0, start_text="", length=4, rows_per_shard=1, seed=0, sampling_dtype="", hidden_dtype="",
        versions={}, predictions=predictions,
    )  # fmt: skip
    return ReplayPool(folder=tmp_path, settings=settings, rows=1, shards=[])


def auto(pool: ReplayPool | None, offered: TeacherOptions) -> TeacherChoice:
    return choose_teacher("auto", "kl", pool, offered)


def test_the_first_that_fits_is_taken() -> None:
    assert auto(None, options()).kind == "hidden"
    assert auto(None, options(disk=10**6)).kind == "topk"
    assert auto(None, options(disk=10**3)).kind == "live"
    assert auto(None, options(adapted(), disk=10**3)).kind == "adapter"
    moving = adapted()
    moving.get_base_model().model.norm.weight.requires_grad_(True)
    assert auto(None, options(moving, disk=10**3)).kind == "live"
    with pytest.raises(ConfigError, match="no teacher fits: 0 MiB of disk and 0 MiB of memory"):
        auto(None, options(disk=10**3, memory=10**3))


@pytest.mark.parametrize(
    ("stored", "model", "expected"),
    [
        ("hidden", make_model, "hidden"),
        ("topk", make_model, "topk"),
        ("none", make_model, "live"),
        ("none", adapted, "adapter"),
    ],
)
def test_a_given_pool_decides_by_what_it_stores_whatever_is_free(stored: Any, model: Any, expected: str) -> None:
    free = {"disk": 0, "memory": 0} if stored != "none" else {}
    choice = auto(pool_of(stored), options(model(), **free))
    assert (choice.kind, choice.predictions) == (expected, stored)
    assert f"teacher: {expected}, " in str(choice) and "as the pool stores" in str(choice)


def test_the_costs_are_those_of_what_is_stored_and_copied() -> None:
    model = make_model(tie=False)
    head, weights = model.lm_head.weight, sum(p.numel() for p in model.parameters())
    costs = {}
    for kind in ("hidden", "topk", "live"):
        choice = choose_teacher(kind, "kl", None, options(model))
        costs[kind] = (choice.disk_bytes, choice.memory_bytes)
    assert costs == {
        "hidden": (10_000 * 32 * 4, head.numel() * 4),
        "topk": (10_000 * (4 * 6 + 2), 0),
        "live": (0, 4 * weights),
    }
    head.requires_grad_(False)
    assert choose_teacher("hidden", "kl", None, options(model)).memory_bytes == 0
    assert choose_teacher("adapter", "kl", None, options(adapted())).memory_bytes == 0


def test_a_choice_says_its_costs() -> None:
    choice = TeacherChoice(kind="live", reason="because", disk_bytes=3 * MIB, memory_bytes=3 * 2**30)
    assert str(choice) == (
        "teacher: live, because; disk 3 MiB, memory 3.0 GiB, one more forward pass on replay rows of the base"
    )
    none = choose_teacher("auto", "ntp", None, options())
    assert (none.kind, none.predictions) == (None, "none")
    assert str(none).startswith("teacher: none, next-token replay needs only the sampled tokens; disk 0 MiB")


@pytest.mark.parametrize(
    ("wanted", "pool", "model", "message"),
    [
        ("oracle", None, make_model, "unknown teacher 'oracle'"),
        ("hidden", "none", make_model, "stores tokens only, but the hidden teacher reads hidden"),
        ("topk", "hidden", make_model, "stores hidden, but the topk teacher reads topk"),
        ("adapter", None, make_model, "needs an adapter"),
        ("adapter", "none", lambda: _with_trainable_norm(), "parameter 'model.norm.weight' of the base is trainable"),
    ],
)
def test_what_is_asked_for_and_impossible_is_refused(wanted: str, pool: Any, model: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        choose_teacher(wanted, "kl", pool and pool_of(pool), options(model()))
    assert refused.value.fix


def _with_trainable_norm() -> Any:
    model = adapted()
    model.get_base_model().model.norm.weight.requires_grad_(True)
    return model


def test_an_adapter_that_does_not_match_the_base_is_no_teacher() -> None:
    unlike = options(adapted(), adapter_mismatch="it differs")
    assert auto(pool_of("none"), unlike).kind == "live"
    with pytest.raises(ConfigError, match="it differs, so disabling the adapter does not recover the base"):
        choose_teacher("adapter", "kl", None, unlike)


class Uniform:
    """Predicts every token alike: a teacher whose target is known."""

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def target(self, model: nn.Module, batch: ReplayBatch) -> Target:
        ids_NK = torch.arange(self.vocabulary - 1).expand(batch.targets_BT.numel(), -1)
        return TopKTarget(ids_NK=ids_NK, log_probs_NK1=torch.zeros(len(ids_NK), self.vocabulary))


@pytest.fixture
def uniform() -> Iterator[None]:
    """One more named teacher, taken out again afterwards."""
    TEACHERS["uniform"] = NamedTeacher(
        description="every token alike", make=lambda model, dtype, head: Uniform(259), forward_pass=False
    )
    yield
    del TEACHERS["uniform"]


@pytest.mark.usefixtures("uniform")
def test_one_entry_is_a_new_teacher() -> None:
    choice = choose_teacher("uniform", "kl", pool_of("none"), options())
    assert str(choice).startswith("teacher: uniform, every token alike, as asked; disk 0 MiB, memory 0 MiB, no forward")
    assert auto(pool_of("none"), options(memory=0)).kind == "uniform", "nothing before it fits"
    batch = ReplayBatch(tokens_BW=torch.arange(6).view(2, 3))
    target = make_teacher("uniform", make_model(), torch.float32).target(make_model(), batch)
    log_probs: Tensor = target.chunk(slice(0, 4)).log_probs(torch.randn(4, 259).log_softmax(-1))
    torch.testing.assert_close(log_probs.exp(), torch.full((4, 259), 1 / 259))
