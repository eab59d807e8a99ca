"""What of a folder is data: README and LICENSE beside rows are not, and of several splits only train is."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import yaml
from datasets.exceptions import DatasetsError

from keeptune.data.files.formats import format_of, refuse_suffix
from keeptune.data.files.walk import listed, name_in
from keeptune.errors import SourceError
from keeptune.log import logger
from keeptune.models.guarded import first_line

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_WORDS = re.compile(r"[-._= 0-9]+")
# Beside rows these files are about the data. Scripts and the like are so in a data-set repository only.
_ABOUT = re.compile(
    r"(readme|licen[sc]e|copying|notice|citation|changelog)\b.*|requirements.*\.txt|_success|croissant\.json|"
    r"(dataset_infos?|dataset_dict|state)\.json|.*\.(png|jpe?g|gif|svg|webp|md5|sha256|crc|bib|cff)",
    re.IGNORECASE,
)
_CARD_KEYS = frozenset(("configs", "dataset_info", "task_categories", "size_categories", "annotations_creators"))
_NAME_FILES = "name the files, such as 'FOLDER/**/*.jsonl' in quotes"


def without_about(root: Path, files: list[Path]) -> list[Path]:
    """The documents among files: beside rows neither README nor LICENSE is one, and text is refused.

    Raises `SourceError` for a mixture of rows and texts.
    """
    rows = [path for path in files if format_of(path) and not _ABOUT.fullmatch(path.name)]
    repository = _is_repository(root)
    if not rows and not repository:
        return files
    others = sorted(set(files) - set(rows))
    about = [path for path in others if _ABOUT.fullmatch(path.name) or (rows and repository and not _is_refused(path))]
    texts = sorted(set(others) - set(about))
    if rows and texts:
        names = (listed([name_in(path, root) for path in kind]) for kind in (rows, texts))
        raise SourceError(
            "{} has files of rows ({}) and others beside them ({})".format(root, *names),
            f"read one kind: {_NAME_FILES}",
        )
    if about:
        told = listed([name_in(path, root) for path in about])
        logger.warning(f"left out of {root}, being about the data: {told}")
    return rows or texts


def _is_refused(path: Path) -> bool:
    try:
        refuse_suffix(path, path.name)
    except SourceError:
        return True
    return False


def _is_repository(root: Path) -> bool:
    """Whether a folder is a data set as hubs keep it, by its card or the attributes of its files."""
    attributes = root / ".gitattributes"
    if (root / "dataset_infos.json").is_file() or _CARD_KEYS & set(_card(root)):
        return True
    return attributes.is_file() and "*.parquet filter=lfs" in attributes.read_text(encoding="utf-8", errors="replace")


def _card(root: Path) -> Mapping[str, object]:
    """The fields at the top of a data set's README.md."""
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8-sig", errors="replace") if readme.is_file() else ""
    header = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        fields = yaml.safe_load(header[1]) if header else None
    except yaml.YAMLError as error:
        if header and re.search(r"^configs:", header[1], re.MULTILINE):
            raise SourceError(f"the configs in {readme} cannot be read: {first_line(error)}", _NAME_FILES) from error
        return {}
    return fields if isinstance(fields, dict) else {}


def configured_files(root: Path) -> list[Path] | None:
    """The training files that a data set's card names, as the datasets library finds them; None if it names none."""
    configs = _card(root).get("configs")
    if not isinstance(configs, list):
        return None
    names = [str(config.get("config_name", "default")) for config in configs if isinstance(config, dict)]
    try:
        with tempfile.TemporaryDirectory() as cache:
            found = datasets.load_dataset_builder(str(root), cache_dir=cache).config.data_files
    except (OSError, ValueError, TypeError, DatasetsError) as error:
        if len(names) > 1 and "Config name is missing" in str(error):
            what = f"{root} has several configurations: {', '.join(names)}"
            raise SourceError(what, f"name the files of one, such as '{root}/{names[0]}/*train*' in quotes") from error
        raise SourceError(
            f"the configs in {root}/README.md cannot be read: {first_line(error)}", _NAME_FILES
        ) from error
    splits = {
        str(split): [Path(os.path.relpath(file, root.absolute())) for file in found[split]] for split in found or {}
    }
    split = "train" if "train" in splits else next(iter(splits), "")
    if not splits or (split != "train" and len(splits) > 1):
        raise SourceError(f"{root}/README.md names no split train ({', '.join(splits) or 'none'})", _NAME_FILES)
    if any(file.parts[0] == os.pardir for file in splits[split]):
        raise SourceError(f"{root}/README.md names files outside its folder", _NAME_FILES)
    logger.info(f"read as {root}/README.md says: split {split} of {', '.join(splits)}")
    return [root / file for file in splits[split]]


def train_files(root: Path, files: list[Path]) -> list[Path]:
    """The files without those of other splits, if some are of another split by their name or folder."""
    rows = any(format_of(path) for path in files)
    of_file = {path: split_of(path.relative_to(root).parts) if rows else _text_split(root, path) for path in files}
    splits = {split: [path for path in files if of_file[path] == split] for split in set(of_file.values())}
    held_out = {split: paths for split, paths in splits.items() if split not in ("train", None)}
    if not held_out or (None in splits and not rows):
        return files
    told = ", ".join(f"{split} ({listed([name_in(p, root) for p in held_out[split]])})" for split in sorted(held_out))
    if len(splits) == 1:
        logger.warning(f"{root} has a single split, and it is read: {told}")
        return files
    if "train" in splits and None in splits:
        stray = listed([name_in(path, root) for path in splits[None]])
        raise SourceError(f"{root} has splits by name, and files of none: {stray}", _NAME_FILES)
    kept = splits.get("train") or splits.get(None)
    if kept is None:
        raise SourceError(f"{root} has no split train, but {told}", f"read one split: {_NAME_FILES}")
    logger.warning(f"left out of {root}, being of other splits: {told}")
    return kept


def split_of(parts: Sequence[str]) -> str | None:
    """The split that the name of a file, or else of a folder, tells."""
    for part in reversed(parts):
        found = {_SPLITS[word] for word in _WORDS.split(part.lower()) if word in _SPLITS}
        if found:
            return "train" if "train" in found else min(found)
    return None


def _text_split(root: Path, path: Path) -> str | None:
    """The split of a text. Folders of code have tests too: here only a whole name counts."""
    first, *rest = path.relative_to(root).parts
    return _SPLITS.get(first.lower() if rest else first.lower().removesuffix(".txt"))
