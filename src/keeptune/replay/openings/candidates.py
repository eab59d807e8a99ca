"""The candidates for what stands before a document, and the rule that chooses one.

A pretraining document starts inside a packed context. Models that always saw a BOS at position 0 can start a row with
it. A document separator at position 0 is an attention sink that the model has hardly seen, and its predictions are
chaotic there. So candidates are probed on the base (`keeptune.replay.openings.probe`), in this order:

| name       | the row opens with                                                             |
|------------|--------------------------------------------------------------------------------|
| start      | the token that starts a document (BOS, else a separator)                       |
| twice      | that token twice                                                               |
| newline    | a newline, then that token                                                     |
| text       | a newline, a short text of the base's own, and that token                      |
| start-text | that token, such a text, and that token again                                  |

There are at most 64 short texts of twelve tokens, which rows use in turn. Of 128 samples those are left out after which
noise in the model moves its prediction far more than after the others; of the rest those are taken after which it is
least sure of the next token. The rule: `start` is taken if it keeps the bounds. Else all are probed, and the first that
keeps them is taken.

1. Noise: KL(float32‖16 bit) at each of the first three positions is at most 0.005 nats, or 5 times that at the third.
2. Concentration: the likeliest first token has a probability of at most 0.25, as a mean over the openings.
3. Known text after it is at most 0.25 nats per token less likely than after the best of the probed candidates.

If no candidate keeps them all, the one that keeps most is taken (of several the first), and a warning says what it
breaks. Candidates that do not fit the model's positions are left out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from keeptune.log import logger
from keeptune.replay.openings.probe import Probe, Prober

NOISE, TIMES_THIRD, SHARE, LESS_LIKELY = 0.005, 5.0, 0.25, 0.25
_SAMPLED, _TEXTS, _TEXT_TOKENS = 128, 64, 12

_Make = Callable[[], list[list[int]]]


def candidates_for(prober: Prober, first: int, newline: list[int], most: float) -> dict[str, _Make]:
    """What makes each candidate, in the order of the rule; none with more than `most` tokens."""

    def around(before: list[int]) -> list[list[int]]:
        sampled = prober.sample(torch.full((_SAMPLED, 1), first), _TEXT_TOKENS).tolist()
        steady = prober.steady([[*before, *row[1:], first] for row in sampled])
        return prober.least_concentrated(steady, _TEXTS)

    made: dict[str, tuple[int, _Make]] = {
        "start": (1, lambda: [[first]]),
        "twice": (2, lambda: [[first, first]]),
        "newline": (1 + len(newline), lambda: [[*newline, first]]),
        "text": (1 + len(newline) + _TEXT_TOKENS, lambda: around(newline)),
        "start-text": (2 + _TEXT_TOKENS, lambda: around([first])),
    }
    without = {"newline", "text"} if not newline else set()
    return {name: make for name, (size, make) in made.items() if size <= most and name not in without}


def choose(candidates: dict[str, _Make], prober: Prober) -> tuple[str, list[list[int]], dict[str, Probe]]:
    """The rule: name, openings, and the probes of all candidates that were probed."""
    made: dict[str, list[list[int]]] = {}
    probes: dict[str, Probe] = {}
    for name, make in candidates.items():
        made[name] = make()
        probes[name] = prober.probe(made[name])
        if len(probes) == 1 and not _broken(probes[name], probes[name].known):
            break
    name, broken = best_of(probes)
    if broken:
        logger.warning(f"the opening {name!r} breaks a bound of the rule: {'; '.join(broken)}")
    return name, made[name], probes


def best_of(probes: dict[str, Probe]) -> tuple[str, list[str]]:
    """The candidate that breaks the fewest bounds, the first of several, and which it breaks, in words."""
    likeliest = min(probe.known for probe in probes.values())
    broken = {name: _broken(probe, likeliest) for name, probe in probes.items()}
    best = min(broken, key=lambda name: len(broken[name]))
    return best, broken[best]


def _broken(probe: Probe, likeliest: float) -> list[str]:
    """Which bounds of the rule the probe breaks, in words."""
    words = []
    if probe.noise and max(probe.noise) > max(NOISE, TIMES_THIRD * probe.noise[-1]):
        words.append(f"rounding to 16 bits moves the next predictions by {max(probe.noise):.2g} nats")
    if probe.share > SHARE:
        words.append(f"{probe.share:.0%} of the rows will begin with {probe.top!r}")
    if probe.known > likeliest + LESS_LIKELY:
        words.append(f"known text is {probe.known - likeliest:.2f} nats per token less likely than after others")
    return words
