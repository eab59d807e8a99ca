"""Which files a folder or a pattern means: links, hidden files, splits, and what beside the data is no document."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import yaml
from datasets.exceptions import DatasetsError

from keeptune.data.formats import file_rows, format_of, refuse_suffix
from keeptune.data.raw import suffixes
from keeptune.data.tables import is_saved, saved_rows
from keeptune.errors import SourceError, SourceNotFound
from keeptune.log import logger
from keeptune.models.guarded import first_line
from keeptune.storage import damaged_json, read_json

GLOB_MARKS = frozenset("*?[")
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

_Row = tuple[str, str, Any]
"""Unique name, place for error messages, and the row or a `BadRow`."""


def read_folder(folder: Path) -> Iterator[_Row]:
    """Documents of a folder: one that `save_to_disk` wrote, a data-set repository, rows, or one text a file.

    Of splits that file or folder names tell, only train is read. Whatever is left out is logged.
    """
    if is_saved(folder):
        yield from _read_saved(folder)
        return
    files = _configured(folder)
    if files is None:
        files = _train_files(folder, _without_about(folder, _walk(folder)))
        _refuse_twins(folder, files)
    yield from _read_files(folder, files)


def read_pattern(source: str, pattern: Path) -> Iterator[_Row]:
    """Documents of the files that match a glob: all of them, whatever their split."""
    plain = next(index for index, part in enumerate(pattern.parts) if GLOB_MARKS & set(part))
    root = Path(*pattern.parts[:plain])
    files = sorted(path for path in root.glob(str(Path(*pattern.parts[plain:]))) if path.is_file())
    if not files:
        raise SourceNotFound(
            f"no file matches {source}", "check the pattern, and quote it so that the shell does not expand it"
        )
    files = _without_about(root, files)
    splits = sorted({split for path in files if (split := _split_of(path.relative_to(root).parts))})
    if len(splits) > 1:
        logger.warning(f"{source} matches files of several splits ({', '.join(splits)}), and all are read")
    return _read_files(root, files)


def read_file(path: Path) -> Iterator[_Row]:
    """Documents of one file."""
    return _read_files(path.parent, [path])


def files_below(folder: Path) -> list[Path]:
    """The files of a folder and its subfolders, sorted, without hidden ones."""
    return _walk(folder)


def _read_files(root: Path, files: Sequence[Path]) -> Iterator[_Row]:
    without_rows = []
    for path in files:
        refuse_suffix(path, _name(path, root))
    for path in files:
        name, rows = _name(path, root), 0
        for row in file_rows(path, name):
            rows += 1
            yield row
        if not rows:
            without_rows.append(name)
    if without_rows and len(files) > 1:
        logger.warning(f"no rows in {_listed(without_rows)}")


def _walk(root: Path) -> list[Path]:
    files: list[Path] = []
    hidden: set[str] = set()
    left_out: list[str] = []
    seen: set[Path] = set()
    folders = [root]  # then those that links lead to
    while folders:
        for parent, below, names in os.walk(folders.pop(0), onerror=_refuse_folder):
            here = Path(parent)
            if here.resolve() in seen:
                left_out.append(_name(here, root))
                below.clear()
                continue
            seen.add(here.resolve())
            hidden.update(name for name in (*below, *names) if _is_hidden(name))
            below[:] = [name for name in below if not _is_hidden(name)]
            paths = [here / name for name in (*below, *names) if not _is_hidden(name)]
            folders += [path for path in paths if path.is_symlink() and _leads_to_folder(path, root)]
            files += [path for path in paths if path.is_file()]
            left_out += [_name(path, root) for path in paths if not (path.is_file() or path.is_dir())]
    files, twice = _without_copies(files, root)
    if hidden:
        logger.info(f"hidden files and folders in {root} are not read: {_listed(sorted(hidden))}")
    if left_out or twice:
        told = _listed(sorted(left_out + twice))
        logger.warning(f"left out of {root}, being pipes, devices or links to what is read already: {told}")
    return sorted(files)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__pycache__", "__MACOSX")


def _refuse_folder(error: OSError) -> None:
    raise SourceError(f"cannot read the folder {error.filename}: {error.strerror}", "check its permissions") from error


def _leads_to_folder(link: Path, root: Path) -> bool:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise SourceError(f"{link} is a link that leads nowhere", "restore its target, or remove the link") from error
    if target.is_dir() and target in root.resolve().parents:
        raise SourceError(f"{link} is a link to a folder around {root}", "remove the link")
    return target.is_dir()


def _without_copies(files: list[Path], root: Path) -> tuple[list[Path], list[str]]:
    """The files without links to others of them, and the names of these links."""
    kept: dict[Path, Path] = {}
    twice = []
    for path in sorted(files, key=lambda path: (path.is_symlink(), path)):
        if kept.setdefault(path.resolve(), path) != path:
            twice.append(_name(path, root))
    return list(kept.values()), twice


def _without_about(root: Path, files: list[Path]) -> list[Path]:
    """The documents among files: beside rows neither README nor LICENSE is one, and text is refused.

    Raises `SourceError` for a mixture of rows and texts.
    """
    rows = [path for path in files if format_of(path) and not _ABOUT.fullmatch(path.name)]
    repository = _is_repository(root)
    if not rows and not repository:
        return files
    others = [path for path in files if path not in set(rows)]
    about = [path for path in others if _ABOUT.fullmatch(path.name) or (rows and repository and not _is_refused(path))]
    texts = sorted(set(others) - set(about))
    if rows and texts:
        names = (_listed([_name(path, root) for path in kind]) for kind in (rows, texts))
        raise SourceError(
            "{} has files of rows ({}) and others beside them ({})".format(root, *names),
            f"read one kind: {_NAME_FILES}",
        )
    if about:
        told = _listed([_name(path, root) for path in about])
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


def _card(root: Path) -> dict[str, Any]:
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


def _configured(root: Path) -> list[Path] | None:
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


def _train_files(root: Path, files: list[Path]) -> list[Path]:
    """The files without those of other splits, if some are of another split by their name or folder."""
    rows = any(format_of(path) for path in files)
    of_file = {path: _split_of(path.relative_to(root).parts) if rows else _text_split(root, path) for path in files}
    splits = {split: [path for path in files if of_file[path] == split] for split in set(of_file.values())}
    held_out = {split: paths for split, paths in splits.items() if split not in ("train", None)}
    if not held_out or (None in splits and not rows):
        return files
    told = ", ".join(f"{split} ({_listed([_name(p, root) for p in held_out[split]])})" for split in sorted(held_out))
    if len(splits) == 1:
        logger.warning(f"{root} has a single split, and it is read: {told}")
        return files
    if "train" in splits and None in splits:
        stray = _listed([_name(path, root) for path in splits[None]])
        raise SourceError(f"{root} has splits by name, and files of none: {stray}", _NAME_FILES)
    kept = splits.get("train") or splits.get(None)
    if kept is None:
        raise SourceError(f"{root} has no split train, but {told}", f"read one split: {_NAME_FILES}")
    logger.warning(f"left out of {root}, being of other splits: {told}")
    return kept


def _split_of(parts: Sequence[str]) -> str | None:
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


def _refuse_twins(root: Path, files: list[Path]) -> None:
    """Raise `SourceError` for two files of rows whose names differ by their formats alone."""
    first: dict[str, Path] = {}
    for path in files:
        if format_of(path) is None:
            continue
        bare = str(path.relative_to(root)).lower().removesuffix(suffixes(path)[1]).removesuffix(suffixes(path)[0])
        if (other := first.setdefault(bare, path)) != path:
            names = f"{other.relative_to(root)} and {path.relative_to(root)}"
            raise SourceError(f"{names} in {root} seem to be the same rows in two formats", "name one of them")


def _read_saved(folder: Path) -> Iterator[_Row]:
    """The rows of a folder of `save_to_disk`: of a DatasetDict its split train."""
    if (folder / "dataset_dict.json").is_file():
        with damaged_json(folder / "dataset_dict.json", "save it again"):
            splits = sorted(read_json(folder / "dataset_dict.json", "save it again")["splits"])
        if missing := [split for split in splits if not is_saved(folder / split)]:
            raise SourceError(f"{folder} lacks its split {_listed(missing)}", "save it again, or copy all of it")
        split = "train" if "train" in splits else splits[0] if len(splits) == 1 else None
        if split is None:
            raise SourceError(
                f"{folder} has no split train, but {_listed(splits) or 'none'}",
                f"name a split, such as {folder / splits[0] if splits else folder}",
            )
        others = [other for other in splits if other != split]
        if others or split != "train":
            logger.warning(f"of {folder} the split {split} is read, and not: {_listed(others) or 'others'}")
        folder = folder / split
    for number, row in saved_rows(folder):
        yield f"{folder.name}:{number.split()[-1]}", f"{folder.name}, {number}", row


def _name(path: Path, root: Path) -> str:
    """The name of a document: where its file lies. Bytes that are no character are written as such, like `\\xe9`."""
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def _listed(names: Sequence[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
