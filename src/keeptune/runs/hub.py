"""The Hub's conventions: what stands at the top of a model card, and the upload of a finished model.

`base_model` must be an id of the Hub, since the Hub draws the family tree of models from it: a path is never written
there. Source: the Hub's documentation on model cards; `huggingface_hub.ModelCardData` checks the fields.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import EvalResult, HfApi, ModelCardData, hf_hub_download, metadata_load
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from keeptune.errors import ConfigError, SourceError
from keeptune.log import logger
from keeptune.models.guarded import first_line

if TYPE_CHECKING:
    from keeptune.runs.settings import TuneSettings
    from keeptune.train.readings import Reading

# The models and data sets that keeptune has names of its own for.
_KNOWN_MODELS = {"smollm2": ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")}
_HUB_SET = re.compile(r"([\w.-]+/[\w.-]+)(:[\w.-]+)?", re.ASCII)
_UNIT = "nats per token"


def check_hub(settings: TuneSettings) -> None:
    """Refuse ids that the Hub would refuse, before a run that uploads its model.

    Raises:
        ConfigError: an id that is none, or a model to upload whose base has no id.
    """
    for flag, name in (("--push-to-hub", settings.push_to_hub), ("--base-model", settings.base_model)):
        if name is not None and not _is_id(name):
            raise ConfigError(f"{flag} {name!r} is not an id of the Hub", "write it as organization/name")
    if settings.push_to_hub is not None and base_id(settings) is None:
        raise ConfigError(
            f"--push-to-hub uploads a card that names the base's id on the Hub, and the base is {settings.model!r}",
            "name the id with --base-model organization/name",
        )


def base_id(settings: TuneSettings) -> str | None:
    """The base's id on the Hub; None for a folder or file without one."""
    if settings.base_model is not None:
        return settings.base_model
    name = settings.model
    if name in _KNOWN_MODELS:
        return _KNOWN_MODELS[name][0]
    return name if not Path(name).expanduser().exists() and _is_id(name) else None


def card_metadata(settings: TuneSettings, last: Reading, drift_on: str) -> str:
    """The YAML at the top of a card, between its marks.

    Args:
        last: the reading of the saved model.
        drift_on: the text on which its drift was read, in words.
    """
    data = settings.data
    named = _HUB_SET.fullmatch(data)
    of_hub = named[1] if named and not Path(data).expanduser().exists() else None
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=of_hub or "text" if on == data else "text",
            dataset_name=on,
            metric_type=kind,
            metric_name=f"{name}, {_UNIT}",
            metric_value=round(value, 4),
        )
        for on, kind, name, value in (
            (data, "cross_entropy", f"task loss, {last['L_ft_on']}", last["L_ft"]),
            (drift_on, "kl_divergence", "KL(base‖tuned)", last["KL"]),
            (drift_on, "forgetting", "rise of L_f over the base's", last["L_f"] - last["L_f_base"]),
        )
        if value is not None and math.isfinite(value)
    ]
    fields = ModelCardData(
        base_model=base_id(settings),
        datasets=[of_hub] if of_hub else None,
        eval_results=results,
        library_name="peft" if settings.lora else "transformers",
        license=settings.license or _license(settings.model),
        model_name=Path(settings.out).name or "tuned",
        pipeline_tag="text-generation",
        tags=["keeptune", "sft", *(["lora"] if settings.lora else [])],
    )
    return str(fields.to_yaml())


def push(folder: Path, name: str) -> None:
    """Upload the finished model of a run.

    Raises:
        SourceError: the Hub refuses it, or cannot be reached. The model stays in its folder.
    """
    try:
        api = HfApi()
        api.create_repo(name, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Tuned with keeptune")
    except Exception as error:  # the Hub's client raises what its HTTP library raises, which changes by version
        raise SourceError(
            f"{folder} could not be uploaded to {name}: {first_line(error)}",
            f"log in with hf auth login, then upload it: hf upload {name} {folder}",
        ) from error
    logger.info(f"uploaded to {name}")


def _is_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not name.endswith(".gguf")


def _license(model: str) -> str | None:
    """The license that the base's card names, if the card can be read."""
    if model in _KNOWN_MODELS:
        return _KNOWN_MODELS[model][1]
    with suppress(Exception):  # a card is free text on somebody's page, and only adds a line to ours
        card = Path(model) / "README.md" if Path(model).is_dir() else Path(hf_hub_download(model, "README.md"))
        found = (metadata_load(card) or {}).get("license")
        return found if isinstance(found, str) else None
    return None
