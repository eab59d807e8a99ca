"""A page as a parser reads it, and as a real headless Chromium leaves it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Chromium = Callable[..., tuple[str, list[str]]]


@pytest.fixture
def chromium(tmp_path: Path) -> Chromium:
    """`chromium(page, *options)` gives the document as Chromium leaves it, and the lines that its console got."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed")
    return lambda page, *options: _run(program, tmp_path, page, *options)


def _run(program: str, tmp_path: Path, page: str, *options: str) -> tuple[str, list[str]]:
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    # A headless window is never narrower than 500 px: a frame is, and its parent may look inside.
    (tmp_path / "phone.html").write_text(
        '<iframe src="page.html" width="375" height="700" style="border:0"></iframe><script>onload = () => {'
        "const inside = frames[0].document; console.log('phone page loaded');"
        "document.title = inside.documentElement.scrollWidth + ' of ' + frames[0].innerWidth}</script>"
    )
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    switches += ["--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files"]
    switches += ["--enable-logging=stderr", "--v=0", "--virtual-time-budget=4000", "--hide-scrollbars", "--dump-dom"]
    name = "phone.html" if "--phone" in options else "page.html"
    done = subprocess.run(
        [program, *switches, *options, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / name).as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
