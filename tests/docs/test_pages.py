"""README and docs: links lead somewhere, commands parse, and pages made from the code are up to date."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import CycloptsError

from keeptune.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs").glob("[ht]*/*.md"))]
BLOCK = re.compile(r"^```(\S+)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4}(keeptune .*)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s:#]+)(?:#[^)\s]*)?\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """Every `keeptune ...` of a page, as the shell would split it."""
    text = page.read_text(encoding="utf-8")
    shell = [match[3] for match in BLOCK.finditer(text) if match[1] in ("bash", "sh", "console")]
    for lines in (*shell, "\n".join(INDENTED.findall(text))):
        for line in lines.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["keeptune"]:
                yield words[1:]


def test_the_readme_is_short() -> None:
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    assert not [link for link in LINK.findall(text) if not (page.parent / link).exists()]


def test_every_command_parses() -> None:
    said = [(page, words) for page in PAGES for words in commands(page)]
    assert len(said) > 25
    wrong = []
    for page, words in said:
        if words[0] in ("VERB", "--help") or words[-1] == "--help":
            continue
        try:
            app.parse_args(words, exit_on_error=False, print_error=False)
        except CycloptsError as error:
            wrong.append((page.name, " ".join(words), str(error)))
    assert not wrong


def test_the_page_of_the_command_line_is_that_of_the_program() -> None:
    spec = importlib.util.spec_from_file_location("reference_cli", ROOT / "docs" / "reference_cli.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run python docs/reference_cli.py"
