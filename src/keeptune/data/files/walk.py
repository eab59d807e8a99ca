"""The files of a folder: hidden files and links are left out or followed by rule, and never silently."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from keeptune.errors import SourceError
from keeptune.log import logger


def files_below(root: Path) -> list[Path]:
    """The files of a folder and its subfolders, sorted, without hidden ones. Links are followed, once."""
    files: list[Path] = []
    hidden: set[str] = set()
    left_out: list[str] = []
    seen: set[Path] = set()
    folders = [root]  # then those that links lead to
    while folders:
        for parent, below, names in os.walk(folders.pop(0), onerror=_refuse_folder):
            here = Path(parent)
            if here.resolve() in seen:
                left_out.append(name_in(here, root))
                below.clear()
                continue
            seen.add(here.resolve())
            hidden.update(name for name in (*below, *names) if _is_hidden(name))
            below[:] = [name for name in below if not _is_hidden(name)]
            paths = [here / name for name in (*below, *names) if not _is_hidden(name)]
            folders += [path for path in paths if path.is_symlink() and _leads_to_folder(path, root)]
            files += [path for path in paths if path.is_file()]
            left_out += [name_in(path, root) for path in paths if not (path.is_file() or path.is_dir())]
    files, twice = _without_copies(files, root) if any(path.is_symlink() for path in files) else (files, [])
    if hidden:
        logger.info(f"hidden files and folders in {root} are not read: {listed(sorted(hidden))}")
    if left_out or twice:
        told = listed(sorted(left_out + twice))
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
            twice.append(name_in(path, root))
    return list(kept.values()), twice


def name_in(path: Path, root: Path) -> str:
    """The name of a document: where its file lies. Bytes that are no character are written as such, like `\\xe9`."""
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def listed(names: Sequence[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
