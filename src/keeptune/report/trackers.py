"""A report's numbers in an experiment tracker: trackio, TensorBoard or W&B, through their own libraries."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from keeptune.errors import ConfigError
from keeptune.report.codec import to_json
from keeptune.report.document import Report

TRACKERS = ("trackio", "tensorboard", "wandb")
PROJECT = "keeptune"


def check_trackers(names: Iterable[str]) -> None:
    """Refuse, before anything runs, what the numbers cannot be sent to.

    Raises:
        ConfigError: no tracker has that name, or its package is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"--report-to {name}: there is no such tracker", f"name one of {', '.join(TRACKERS)}")
        if find_spec(name) is None:
            raise ConfigError(f"--report-to {name}: the package {name} is not installed", f"pip install {name}")


def numbers_of(report: Report) -> dict[str, float]:
    """Every judged or headline finding by `section/subject/part/measure`, and the ends of its interval."""
    numbers: dict[str, float] = {}
    for one in report.findings:
        if one.verdict is None and not one.headline:
            continue
        name = "/".join(part for part in (one.section, one.subject, one.part, one.measure) if part)
        ends = {"": one.value, "_low": one.low, "_high": one.high}
        numbers |= {name + end: value for end, value in ends.items() if value is not None}
    return numbers


def track_report(report: Report, names: Sequence[str], out: Path) -> None:
    """Send the numbers to each tracker as one run, called after the audit's folder `out`.

    The project is `keeptune`, or what WANDB_PROJECT or TRACKIO_PROJECT says. TensorBoard's files go to
    `<out>/tensorboard`.
    """
    numbers, settings = numbers_of(report), to_json(report.settings, dict)
    for name in names:
        if name == "tensorboard":
            writer = import_module("torch.utils.tensorboard").SummaryWriter(str(out / "tensorboard"))
            for number, value in numbers.items():
                writer.add_scalar(number, value)
            writer.close()
            continue
        tracker, project = import_module(name), os.environ.get(f"{name.upper()}_PROJECT", PROJECT)
        tracker.init(project=project, name=out.resolve().name, config=settings)
        tracker.log(numbers)
        tracker.finish()
