"""Every method's candidates, read on the choosing rows: the frontier of what is kept against what is learned."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.repair.methods import METHODS, Method
from keeptune.repair.methods.groups import Groups, blocks_of
from keeptune.repair.methods.interpolate import Interpolate
from keeptune.repair.methods.svd import Svd
from keeptune.repair.outcome import Point, best_within
from keeptune.repair.pair import Pair
from keeptune.repair.reading import Ends, Reader, Reading, reading_of
from keeptune.repair.search import ROOM, strongest_within, upper
from keeptune.repair.settings import RepairSettings
from keeptune.repair.tuning import SelfRepair, Start, Texts, self_repair
from keeptune.stats import format_interval
from keeptune.workspace import Steps

Candidate = Callable[[str, Tensor, Tensor], Tensor]


@dataclass(kw_only=True)
class Frontier:
    """Makes candidates and reads each once; what was read is kept on disk."""

    pair: Pair
    settings: RepairSettings
    reader: Reader
    steps: Steps
    cache: Path
    ends: Ends = field(init=False)
    points: list[Point] = field(default_factory=list)
    made: dict[str, Method] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """Methods that this pair rules out, and why."""

    def read_ends(self) -> Ends:
        """Both ends on the choosing rows; the model is the tuned one afterwards."""
        self.pair.change.place_base()
        base = self._once("base", self.reader.choosing)
        self.pair.change.place_tuned()
        self.ends = Ends(base=base, tuned=self._once("tuned", self.reader.choosing))
        return self.ends

    def _once(self, name: str, compute: Callable[[], Reading]) -> Reading:
        return reading_of(self.steps.once(name, lambda: asdict(compute())))

    def limit(self) -> float:
        """What the upper end of a candidate's KL may be: below the budget, and below what the tuned model has."""
        return ROOM * min(self.settings.budget, upper(self.ends.tuned.forgotten))

    def explore(self) -> list[Point]:
        """Search the budget with every method; returns all candidates that were read."""
        for name in self.settings.methods:
            try:
                self._try(name)
            except ConfigError as error:
                self.skipped[name] = error.what
                logger.info(f"{name} is left out: {error.what}")
        return self.points

    def _try(self, name: str) -> None:
        if name == "tune":
            self._tune()
            return
        kind = METHODS[name]
        if kind is None:
            raise KeyError(name)
        if self.pair.change.beside and not kind.linear:
            raise ConfigError("the base is quantized, and only the adapter's strength can be changed", "leave it out")
        self.search(self.method(name))

    def method(self, name: str) -> Method:
        """The method, prepared on this pair."""
        if name not in self.made:
            change = self.pair.change
            if name == "groups":
                self.made[name] = self._groups()
            elif name == "svd":
                svd = Svd(self.cache / "svd.safetensors")
                svd.prepare(change.base, change.tuned, change.names)
                self.made[name] = svd
            else:
                self.made[name] = METHODS[name]()  # type: ignore[misc]
        return self.made[name]

    def _groups(self) -> Groups:
        change, reader = self.pair.change, self.reader

        def kl(is_tuned: Callable[[str], bool]) -> tuple[float, float]:
            change.place(lambda name, base, tuned: tuned if is_tuned(name) else base)
            kls = (reader.kl(text, text.choosing) for text in (reader.base_text, reader.tuned_text))
            base_kl, tuned_kl = (float(kl_RT.mean()) for kl_RT in kls)
            return base_kl, tuned_kl

        def measured() -> dict[str, Any]:
            return asdict(Groups.measure(change.names, blocks_of(change.names), kl))

        return Groups(**self.steps.once("groups of modules", measured))

    def search(self, method: Method) -> None:
        """Find the strength at which a method keeps the budget."""
        at_end = self.ends.tuned if method.ends_at_tuned else self.read(method, 1.0)
        ends = upper(self.ends.base.forgotten), upper(at_end.forgotten)
        strongest_within(lambda strength: upper(self.read(method, strength).forgotten), ends, self.limit())

    def read(self, method: Method, strength: float) -> Reading:
        """A candidate on the choosing rows."""

        def compute() -> Reading:
            self.pair.change.place(lambda name, base, tuned: method.weight(name, base, tuned, strength))
            return self.reader.choosing()

        steps = self.steps
        if isinstance(method, SelfRepair):
            steps = steps.of(run=self._key(method.start))
        reading = reading_of(steps.once(f"{method.name} {strength:.6f}", lambda: asdict(compute())))
        if any((point.method, point.strength) == (method.name, strength) for point in self.points):
            return reading
        point = Point.of(method.name, strength, reading, self.ends)
        logger.info(
            f"{method.title}, strength {strength:.3f}: KL to the base {format_interval(point.forgotten.as_dict())}, "
            f"{point.undone.value:.0%} of it undone, {point.lost.value:.1%} of what was learned lost"
        )
        self.points.append(point)
        return reading

    def _tune(self) -> None:
        """Self-repair, from the best candidate so far."""
        if not self.points:
            self.search(self.method("interpolate"))
        best = best_within(self.points, self.limit(), most_lost=float("inf"))
        start = Start(method=Interpolate(), strength=0.0)
        if best is not None and (not self.pair.change.beside or self.made[best.method].linear):
            start = Start(method=self.made[best.method], strength=best.strength)
        texts = Texts(base=self.reader.base_text, tuned=self.reader.tuned_text, task=self.reader.task)
        file = self.cache / "tuning.safetensors"
        method = self_repair(self.pair.change, start, texts, self.settings, file, self._key(start))
        self.made["tune"] = method
        self.search(method)

    def _key(self, start: Start) -> str:
        """Names a run of self-repair by all that decides it."""
        budget, name = self.settings.budget, start.method.name
        about = {"inputs": self.steps.inputs, "budget": budget, "start": name, "strength": start.strength}
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()

    def nearest_allowed(self, point: Point) -> None:
        """Search with the point's method the smallest KL at which it loses no more than it may."""
        method, most = self.made[point.method], self.settings.most_lost

        def lost(taken_back: float) -> float:
            return max(self.ends.lost(self.read(method, 1.0 - taken_back)).value, 0.0)

        strongest_within(lost, (0.0, 1.0), most)

    def place(self, point: Point) -> None:
        """Make the model this candidate."""
        method = self.made[point.method]
        self.pair.change.place(lambda name, base, tuned: method.weight(name, base, tuned, point.strength))
