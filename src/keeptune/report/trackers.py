"""A report's numbers in an experiment tracker: trackio, TensorBoard or W&B, through their own libraries."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.models.guarded import first_line
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
        # The folder ./wandb of earlier runs is found too where Python imports from the working directory.
        if (package := find_spec(name)) is None or package.origin is None:
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
    """Send the numbers to each tracker as a run of its own, called after the audit's folder `out`.

    The project is `keeptune`, or what WANDB_PROJECT or TRACKIO_PROJECT says. TensorBoard's files go to
    `<out>/tensorboard`. A tracker that fails is logged as an error: the report is written, and a gate still decides.
    """
    for name in dict.fromkeys(names):
        try:
            _send(report, name, out)
        except Exception as error:  # each service raises errors of its own: no network, no login, a full disk
            logger.error(f"--report-to {name}: the numbers were not sent: {first_line(error)}; the report is in {out}")


def _send(report: Report, name: str, out: Path) -> None:
    numbers = numbers_of(report)
    if name == "tensorboard":
        with import_module("torch.utils.tensorboard").SummaryWriter(str(out / "tensorboard")) as writer:
            for number, value in numbers.items():
                writer.add_scalar(number, value)
        return
    project, settings = os.environ.get(f"{name.upper()}_PROJECT", PROJECT), to_json(report.settings, dict)
    # By default W&B would hand out the run that a training in this process has open, and `finish` would end it.
    apart = {"reinit": "create_new"} if name == "wandb" else {}
    run = import_module(name).init(project=project, name=out.resolve().name, config=settings, **apart)
    try:
        run.log(numbers)
    finally:
        run.finish()
