"""Fetching wheel members with the real pip, from a folder of wheels made on the fly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from pathlib import Path

import pytest

from keeptune.errors import SourceError
from keeptune.models.disk import wheels
from keeptune.models.disk.wheels import build_once, cache_folder, fetch_wheel_members
from keeptune.storage import sha256_file

MEMBERS = {"parts/a/one.v": "module one;", "parts/two.v": "module two;", "parts/readme.md": "no"}


def make_wheel(folder: Path, members: dict[str, str] = MEMBERS) -> Path:
    """A wheel that pip accepts, of a package called `parts`."""
    folder.mkdir(parents=True, exist_ok=True)
    info = "parts-1.0.dist-info"
    meta = {
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: parts\nVersion: 1.0\nRequires-Dist: not-to-be-fetched\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    path = folder / "parts-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {**members, **meta}.items():
            archive.writestr(name, text)
    return path


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where pip looks for packages."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return tmp_path / "shelf"


def cached() -> list[str]:
    return sorted(path.name for path in cache_folder().rglob("*") if path.is_file())


def test_only_the_selected_members_arrive_and_a_second_call_needs_no_pip(
    shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = make_wheel(shelf)
    checksum = sha256_file(wheel)
    folder = fetch_wheel_members("parts", "1.0", checksum, "parts/*.v")
    assert (folder / "parts/a/one.v").read_text() == "module one;"
    assert cached() == [".checksums.json", "one.v", "two.v"]
    assert folder.is_relative_to(cache_folder())
    assert "fetching parts==1.0 with pip" in capsys.readouterr().err

    wheel.unlink()
    assert fetch_wheel_members("parts", "1.0", checksum, "parts/*.v") == folder
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("damaged", ["parts/a/one.v", ".checksums.json", None])
def test_a_damaged_file_of_the_cache_is_made_again(
    shelf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damaged: str | None
) -> None:
    folder, built = shelf / "cache" / "parts", []

    def build(into: Path) -> None:
        built.append(into)
        (into / "parts" / "a").mkdir(parents=True)
        (into / "parts/a/one.v").write_text("module one;")

    build_once(folder, build)
    if damaged is not None:
        content = bytearray((folder / damaged).read_bytes())
        content[3] ^= 0x10
        (folder / damaged).write_bytes(content)
    monkeypatch.setattr(wheels, "_READ", set())  # a process of its own
    assert (build_once(folder, build) / "parts/a/one.v").read_text() == "module one;"
    assert len(built) == (1 if damaged is None else 2)
    said = capsys.readouterr().err
    assert ("in the cache is damaged: parts is deleted and made again" in said) == (damaged is not None)


def test_a_look_for_pip_leaves_setuptools_its_distutils(shelf: Path) -> None:
    """A later import of setuptools, by whatever compiles an extension, goes through."""
    checksum = sha256_file(make_wheel(shelf))
    code = f"""
    import sys
    from keeptune.models.disk.wheels import fetch_wheel_members
    assert not {{"setuptools", "distutils"}} & set(sys.modules)
    fetch_wheel_members("parts", "1.0", "{checksum}", "parts/*.v")
    import setuptools
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_another_selection_of_the_same_wheel_is_kept_apart(shelf: Path) -> None:
    checksum = sha256_file(make_wheel(shelf))
    first = fetch_wheel_members("parts", "1.0", checksum, "parts/a/*.v")
    second = fetch_wheel_members("parts", "1.0", checksum, "parts/*.md")
    assert first != second
    assert (second / "parts/readme.md").is_file()
    assert not (first / "parts/two.v").exists()


def test_a_wheel_with_another_checksum_is_refused(shelf: Path) -> None:
    make_wheel(shelf)
    with pytest.raises(SourceError, match=f"expected {'0' * 64}"):
        fetch_wheel_members("parts", "1.0", "0" * 64, "parts/*.v")
    assert cached() == []


def test_a_truncated_wheel_never_enters_the_cache(shelf: Path) -> None:
    wheel = make_wheel(shelf)
    checksum = sha256_file(wheel)
    wheel.write_bytes(wheel.read_bytes()[:200])
    with pytest.raises(SourceError, match=r"could not fetch parts==1.0|sha256"):
        fetch_wheel_members("parts", "1.0", checksum, "parts/*.v")
    assert cached() == []


def test_damage_inside_a_pinned_wheel_is_told(shelf: Path) -> None:
    wheel = make_wheel(shelf)
    data = bytearray(wheel.read_bytes())
    at = data.index(b"module one;")
    data[at : at + 6] = b"damage"
    wheel.write_bytes(data)
    with pytest.raises(SourceError, match="not a readable wheel"):
        fetch_wheel_members("parts", "1.0", sha256_file(wheel), "parts/*.v")
    assert cached() == []


def test_no_such_package_gives_pips_reason_and_what_to_do(shelf: Path) -> None:
    shelf.mkdir()
    with pytest.raises(SourceError, match=r"No matching distribution found for parts==1.0") as caught:
        fetch_wheel_members("parts", "1.0", "0" * 64, "*")
    assert "network" in caught.value.fix
    assert cached() == []


@pytest.mark.parametrize("package", ["--editable", "../parts", "parts; echo", ""])
def test_a_package_name_cannot_be_an_option_or_a_path(package: str) -> None:
    with pytest.raises(SourceError, match="not a package"):
        fetch_wheel_members(package, "1.0", "0" * 64, "*")


def test_a_selection_that_matches_nothing_is_an_error(shelf: Path) -> None:
    checksum = sha256_file(make_wheel(shelf))
    with pytest.raises(SourceError, match=r"holds no parts/\*\.nothing"):
        fetch_wheel_members("parts", "1.0", checksum, "parts/*.nothing")
    assert cached() == []


@pytest.mark.parametrize("name", ["../escaped.v", "parts/../../escaped.v", "/escaped.v", "parts\\..\\escaped.v"])
def test_members_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    wheel = make_wheel(tmp_path / "shelf", {name: "out"})
    inside = tmp_path / "deep" / "inside"
    inside.mkdir(parents=True)
    with pytest.raises(SourceError, match="written elsewhere"):
        wheels._unpack(wheel, "*.v", inside)
    assert list(tmp_path.rglob("*escaped.v")) == []


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "_MAX_UNPACKED_BYTES", 1 << 20)
    wheel = make_wheel(tmp_path / "shelf", {"bomb.v": "0" * (2 << 20)})
    with pytest.raises(SourceError, match="more than 1 MiB"):
        wheels._unpack(wheel, "*.v", tmp_path)


def test_callers_at_the_same_time_end_with_one_whole_folder(tmp_path: Path) -> None:
    target = cache_folder() / "thing"
    gate = threading.Barrier(4)
    results: list[Path] = []

    def build(folder: Path) -> None:
        gate.wait(timeout=10)
        (folder / "file").write_text("whole")

    threads = [threading.Thread(target=lambda: results.append(wheels.build_once(target, build))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert results == [target] * 4
    assert [path.name for path in target.parent.iterdir()] == ["thing"]
    assert (target / "file").read_text() == "whole"


def test_an_interrupted_download_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C while pip waits for a server that never answers."""
    script = textwrap.dedent(
        """
        import socket, sys
        from keeptune.models.disk.wheels import fetch_wheel_members
        import os
        server = socket.create_server(("127.0.0.1", 0))
        os.environ["PIP_INDEX_URL"] = f"http://127.0.0.1:{server.getsockname()[1]}/simple"
        print("ready", flush=True)
        fetch_wheel_members("parts", "1.0", "0" * 64, "*")
        """
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environment |= {"TMPDIR": str(scratch), "PIP_CONFIG_FILE": os.devnull}
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 120
    while not any(scratch.glob("keeptune-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    # The exit code of an interrupt depends on the libraries that are installed; the command line sets its own.
    assert process.returncode != 0
    assert "KeyboardInterrupt" in error
    assert cached() == []
    assert list(scratch.glob("keeptune-*")) == []
