"""One headless Chromium for all tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.helpers.browser import Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A tab to open pages in."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed")
    tab = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield tab
    tab.close()
