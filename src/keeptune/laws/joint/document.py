"""What laws.json holds of the line and the joint law. Losses in nats per token."""

from __future__ import annotations

from typing import Generic, NotRequired, TypeVar, final

from typing_extensions import TypedDict  # pydantic reads typing's from Python 3.12 on

R2 = TypeVar("R2", float, tuple[float, float])
"""R² of L_f, or of L_ft and L_f."""


class Misses(TypedDict):
    """Median errors |predicted − observed|/observed on the held-out readings, and their number."""

    L_ft: float
    L_f: float
    readings: int


class RankMisses(Misses):
    """On the readings of one P."""

    P: float


class DataRecord(TypedDict):
    """The readings that laws were fitted to."""

    readings: int
    runs: int
    dropped: int
    left_out: int
    P: list[float]
    """Ascending."""
    N: tuple[float, float]
    """The first and the last step."""
    base: str | None


class FitRecord(TypedDict, Generic[R2]):
    """What every fit keeps, see `LineFit`; residuals are sorted and thinned evenly."""

    params: dict[str, float]
    spread: dict[str, tuple[float, float]]
    r2: R2
    runs: int
    information: list[list[list[float]]]
    residuals: list[list[float]]
    draws: list[list[float]]


class JointRecord(FitRecord[tuple[float, float]]):
    """The joint law, see `JointFit`."""

    weak: list[str]
    condition: float
    theta: list[float]
    center: tuple[float, float]


class HeldOut(TypedDict):
    """Errors of the joint law on held-out readings, or why there are none."""

    one_rank: list[RankMisses] | str
    last_30_percent: Misses | str


@final
class Laws(TypedDict):
    """laws.json of runs with one λ. The reason stands in the place of a joint law that does not exist."""

    format: int
    data: DataRecord
    line: FitRecord[float]
    joint: JointRecord | str
    held_out: NotRequired[HeldOut]
    """With a joint law."""
