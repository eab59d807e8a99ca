"""Which teacher a run uses, why, and what it costs: chosen by what the pool stores and what the machine has."""

from __future__ import annotations

from dataclasses import dataclass

from keeptune.errors import ConfigError
from keeptune.replay.manifest import Predictions
from keeptune.replay.pool import ReplayPool
from keeptune.replay.teachers import TEACHERS, TeacherOptions, check_holds, teacher_named

_SHARE = 2  # `auto` uses at most 1/2 of the free disk or memory


@dataclass(frozen=True, kw_only=True)
class TeacherChoice:
    """A teacher by name, or none, with the reason and the costs."""

    kind: str | None  # None if the objective needs no teacher
    reason: str
    disk_bytes: int = 0  # size of the predictions that the pool stores
    memory_bytes: int = 0  # beside the model in training

    @property
    def predictions(self) -> Predictions:
        """What a pool for this teacher stores."""
        return "none" if self.kind is None else teacher_named(self.kind).predictions

    def __str__(self) -> str:
        forward = self.kind is not None and teacher_named(self.kind).forward_pass
        time = "one more forward pass on replay rows" if forward else "no forward pass"
        return (
            f"teacher: {self.kind or 'none'}, {self.reason};"
            f" disk {_size(self.disk_bytes)}, memory {_size(self.memory_bytes)}, {time} of the base"
        )


def choose_teacher(wanted: str, objective: str, pool: ReplayPool | None, options: TeacherOptions) -> TeacherChoice:
    """The teacher named by `wanted`; for `auto` the teacher of the pool's predictions, or the first that fits.

    `wanted` is a name in `TEACHERS`, or `auto`; the `ntp` objective needs no teacher; `pool` is the given pool, None if
    the run will write one. Raises `ConfigError` if the named teacher cannot be used in this run, or no teacher fits.
    """
    stored = None if pool is None else pool.settings.predictions
    if objective == "ntp":
        return TeacherChoice(kind=None, reason="next-token replay needs only the sampled tokens")
    if wanted != "auto":
        if pool is not None:
            check_holds(pool, wanted)
        if obstacle := teacher_named(wanted).obstacle(options):
            raise obstacle
        return _choice(wanted, options, ", as asked")
    matching = [name for name, teacher in TEACHERS.items() if stored in (None, teacher.predictions)]
    if stored not in (None, "none"):
        if obstacle := teacher_named(matching[0]).obstacle(options):
            raise obstacle
        return _choice(matching[0], options, ", as the pool stores it")
    for name in matching:
        choice = _choice(name, options, ", as the pool stores tokens only" if stored == "none" else "")
        if (
            teacher_named(name).obstacle(options) is None
            and choice.disk_bytes * _SHARE <= options.disk_free
            and choice.memory_bytes * _SHARE <= options.memory_free
        ):
            return choice
    raise ConfigError(
        f"no teacher fits: {_size(options.disk_free)} of disk and {_size(options.memory_free)} of memory are free",
        "free some disk or memory, lower replay_tokens, or train a LoRA, whose base needs no copy",
    )


def _choice(name: str, options: TeacherOptions, why: str) -> TeacherChoice:
    teacher = teacher_named(name)
    disk, memory = teacher.disk_bytes(options), teacher.memory_bytes(options)
    return TeacherChoice(kind=name, reason=teacher.description + why, disk_bytes=disk, memory_bytes=memory)


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
