"""Documents of a file, a folder or a pattern."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keeptune.data.files.about import configured_files, split_of, train_files, without_about
from keeptune.data.files.formats import file_rows, format_of, refuse_suffix
from keeptune.data.files.raw import suffixes
from keeptune.data.files.tables import is_saved, saved_rows
from keeptune.data.files.walk import files_below, listed, name_in
from keeptune.errors import SourceError, SourceNotFound
from keeptune.log import logger
from keeptune.storage import damaged_json, read_json

GLOB_MARKS = frozenset("*?[")

_Row = tuple[str, str, Any]
"""Unique name, place for error messages, and the row or a `BadRow`."""


def read_folder(folder: Path) -> Iterator[_Row]:
    """Documents of a folder: one that `save_to_disk` wrote, a data-set repository, rows, or one text a file.

    Of splits that file or folder names tell, only train is read. Whatever is left out is logged.
    """
    if is_saved(folder):
        yield from _read_saved(folder)
        return
    files = configured_files(folder)
    if files is None:
        files = train_files(folder, without_about(folder, files_below(folder)))
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
    files = without_about(root, files)
    splits = sorted({split for path in files if (split := split_of(path.relative_to(root).parts))})
    if len(splits) > 1:
        logger.warning(f"{source} matches files of several splits ({', '.join(splits)}), and all are read")
    return _read_files(root, files)


def read_file(path: Path) -> Iterator[_Row]:
    """Documents of one file."""
    return _read_files(path.parent, [path])


def _read_files(root: Path, files: Sequence[Path]) -> Iterator[_Row]:
    without_rows = []
    for path in files:
        refuse_suffix(path, name_in(path, root))
    for path in files:
        name, rows = name_in(path, root), 0
        for row in file_rows(path, name):
            rows += 1
            yield row
        if not rows:
            without_rows.append(name)
    if without_rows and len(files) > 1:
        logger.warning(f"no rows in {listed(without_rows)}")


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
            raise SourceError(f"{folder} lacks its split {listed(missing)}", "save it again, or copy all of it")
        split = "train" if "train" in splits else splits[0] if len(splits) == 1 else None
        if split is None:
            raise SourceError(
                f"{folder} has no split train, but {listed(splits) or 'none'}",
                f"name a split, such as {folder / splits[0] if splits else folder}",
            )
        others = [other for other in splits if other != split]
        if others or split != "train":
            logger.warning(f"of {folder} the split {split} is read, and not: {listed(others) or 'others'}")
        folder = folder / split
    for number, row in saved_rows(folder):
        yield f"{folder.name}:{number.split()[-1]}", f"{folder.name}, {number}", row
