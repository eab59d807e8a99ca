"""`keeptune repair`: from two names to a repaired model, its certificate and the frontier it was chosen from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np

from keeptune.data.templates import on_day
from keeptune.errors import ConfigError, SourceError
from keeptune.log import logger
from keeptune.models.modeling import select_attention
from keeptune.repair.frontier import Frontier
from keeptune.repair.outcome import Answer, Finished, Point, best_within, nearest
from keeptune.repair.page import repair_page
from keeptune.repair.pair import Pair, check_names, load_pair
from keeptune.repair.reading import Ends, Reader, Reading, task_losses
from keeptune.repair.saving import Factors, factors_of, place_factors, save_beside, save_factors, save_whole
from keeptune.repair.search import upper
from keeptune.repair.settings import RepairSettings
from keeptune.repair.texts import TaskText, task_text, write_texts
from keeptune.repair.words import card
from keeptune.stats import bootstrap_ratio, format_interval
from keeptune.storage import atomic_folder, storage_errors, write_json, write_text
from keeptune.system import default_device, provenance, release, versions
from keeptune.train.budget.certificate import FILE, Certificate, Verdict, certificate_of
from keeptune.workspace import Steps

RESULT, PAGE, MODEL = "repair.json", "report.html", "model"
_ANSWERS = {Verdict.KEPT: Answer.REPAIRED, Verdict.INCONCLUSIVE: Answer.INCONCLUSIVE}


def repair(settings: RepairSettings) -> dict[str, Any]:
    """Repair a tuned model. Writes model/, repair.json and report.html, and returns the content of repair.json.

    Raises:
        ConfigError: models that are no base and its fine-tuning, settings that do not fit, a task text without a gain.
        SourceError, OutputExists, StorageError, Diverged: see `keeptune.errors`.
    """
    settings.workspace.check(settings.identity())
    names = check_names(settings.base, settings.tuned)
    task = task_text(settings, names)
    device = default_device()
    with storage_errors(settings.folder), on_day(settings.workspace.day):
        cache = settings.folder / "cache"
        with _released_if_refused(settings):
            pair = load_pair(names, cache, device)
            select_attention(pair.model, max(settings.length, settings.max_length if task else 0))
            _require_gain(settings, pair, task)
        base_text, tuned_text = write_texts(pair, settings)
        release()
        reader = Reader(model=pair.model, base_text=base_text, tuned_text=tuned_text, task=task)
        marks = {"base": pair.base_mark, "tuned": pair.tuned_mark, "versions": versions()}
        steps = Steps(settings.folder / "steps", **marks, settings=settings.identity())
        return _answered(Frontier(pair=pair, settings=settings, reader=reader, steps=steps, cache=cache))


@contextmanager
def _released_if_refused(settings: RepairSettings) -> Iterator[None]:
    """Claim the folder, and give it back if the block refuses the models: another command may then use it."""
    new, was_there = not settings.workspace.claimed, settings.folder.exists()
    settings.workspace.claim(settings.identity())
    try:
        yield
    except (ConfigError, SourceError):
        if new:
            settings.workspace.clear()
            if not was_there:
                settings.folder.rmdir()
        raise


def _answered(frontier: Frontier) -> dict[str, Any]:
    settings, ends = frontier.settings, frontier.read_ends()
    tuned = Point.of("tuned", 1.0, ends.tuned, ends)
    logger.info(f"the tuned model's KL to its base is {format_interval(tuned.forgotten.as_dict())} nats per token")
    if upper(tuned.forgotten) <= settings.budget:
        kept = _certificate(frontier, _fresh_ends(frontier).tuned)
        if kept.verdict is Verdict.KEPT:
            return _written(frontier, Answer.NOTHING, tuned, None, kept)
    frontier.explore()
    best = best_within(frontier.points, frontier.limit(), settings.most_lost)
    close = nearest(frontier.points, settings.most_lost)
    if best is None and close is not None:
        frontier.nearest_allowed(close)
        best = best_within(frontier.points, frontier.limit(), settings.most_lost)
    chosen = best or nearest(frontier.points, settings.most_lost)
    if chosen is None:
        return _written(frontier, Answer.NOT_REACHABLE, tuned, None, None)
    finished = _finish(frontier, chosen, within=best is not None)
    return _written(frontier, finished.answer, tuned, finished, None)


def _require_gain(settings: RepairSettings, pair: Pair, task: TaskText | None) -> None:
    """Refuse a task text that the tuned model predicts no better than the base: no loss of learning shows on it."""
    if task is None:
        return
    pair.change.place_base()
    base = np.array(list(task_losses(pair.model, task.choosing).values()))
    pair.change.place_tuned()
    tuned = np.array(list(task_losses(pair.model, task.choosing).values()))
    gain = bootstrap_ratio(base[:, 0] - tuned[:, 0], base[:, 1])
    if gain.low is None or gain.low <= 0:
        raise ConfigError(
            f"{settings.tuned} predicts --task-text {settings.task_text} not surely better than {settings.base}: the"
            f" loss falls by {format_interval(gain.as_dict())} nats per token on {gain.documents} documents",
            "name the text that the model was tuned on, with more documents, or leave it out",
        )


def _fresh(frontier: Frontier, name: str) -> Reading:
    """The model in hand on rows that nothing was chosen on."""
    kept = frontier.steps.once(f"fresh {name}", lambda: asdict(frontier.reader.fresh()))
    return Reading(**kept)


def _fresh_ends(frontier: Frontier) -> Ends:
    frontier.pair.change.place_base()
    base = _fresh(frontier, "base")
    frontier.pair.change.place_tuned()
    return Ends(base=base, tuned=_fresh(frontier, "tuned"))


def _certificate(frontier: Frontier, reading: Reading) -> Certificate:
    """The certificate of a budget, from a reading of fresh rows."""
    sums_R, settings = np.array(reading.kl), frontier.settings
    about: dict[str, Any] = {"base": frontier.pair.base_mark, "seed": settings.seed}
    return certificate_of(sums_R, reading.kl_tokens, settings.budget, **about)


def _finish(frontier: Frontier, chosen: Point, *, within: bool) -> Finished:
    """Make the chosen candidate as it will be loaded, read it on fresh rows, and save it with its card.

    `within`: whether it keeps the budget on the rows that it was chosen on.
    """
    pair, settings = frontier.pair, frontier.settings
    ends = _fresh_ends(frontier)
    frontier.place(chosen)
    factors: Factors | str = "the tuned model is no adapter"
    if pair.change.beside:
        rank = max(tensor.shape[1] for tensor in pair.change.tuned.values())
        result = f"a LoRA of rank {rank} on the quantized base"
    else:
        rank = None
        if pair.names.adapter or chosen.method == "svd":
            factors = factors_of(pair.change)
        if isinstance(factors, Factors):
            place_factors(pair.change, factors)
            rank, result = factors.rank, f"a LoRA of rank {factors.rank} on the base"
        else:
            pair.change.round_to(pair.dtype)
            result = f"all weights, in {str(pair.dtype).removeprefix('torch.')}"
            if pair.names.adapter:
                result += f"; no adapter would be exact: {factors}"
    reading = frontier.reader.fresh()
    point = Point.of(chosen.method, chosen.strength, reading, ends)
    certificate = _certificate(frontier, reading)
    answer = _ANSWERS.get(certificate.verdict, Answer.NOT_REACHABLE) if within else Answer.NOT_REACHABLE
    finished = Finished(answer=answer, point=point, certificate=certificate, result=result, rank=rank)
    home = settings.folder / MODEL
    with atomic_folder(home) as temporary:
        if pair.change.beside:
            save_beside(pair, temporary, home)
        elif isinstance(factors, Factors):
            save_factors(pair, factors, temporary, home)
        else:
            save_whole(pair, temporary)
        told = card(settings, finished, ends, pair.base_name, frontier.made[chosen.method].title)
        (temporary / "README.md").write_text(told, encoding="utf-8")
    return finished


def _written(
    frontier: Frontier, answer: Answer, tuned: Point, finished: Finished | None, certificate: Certificate | None
) -> dict[str, Any]:
    """Write repair.json and the page; without a chosen candidate `certificate` is the tuned model's own."""
    settings, pair = frontier.settings, frontier.pair
    certificate = certificate if finished is None else finished.certificate
    result = {
        **provenance(settings.seed),
        "settings": asdict(settings),
        "answer": answer,
        "base": {"source": settings.base, "fingerprint": pair.base_mark},
        "tuned": {"source": settings.tuned, "fingerprint": pair.tuned_mark, **tuned.as_dict()},
        "chosen": None if finished is None else {**finished.point.as_dict(), "saved": finished.result},
        "certificate": None if certificate is None else certificate.as_dict(),
        "frontier": [point.as_dict() for point in frontier.points],
        "titles": {name: method.title for name, method in frontier.made.items()},
        "limit": frontier.limit(),
        "left_out": frontier.skipped,
        "learning_read_on": settings.task_text or "the tuned model's own text",
    }
    write_json(settings.folder / RESULT, result)
    write_text(settings.folder / PAGE, repair_page(result))
    if result["certificate"] is not None:
        write_json(settings.folder / FILE, result["certificate"])
    for name in ("base", "tuned", "svd"):
        (frontier.cache / f"{name}.safetensors").unlink(missing_ok=True)
    return result
