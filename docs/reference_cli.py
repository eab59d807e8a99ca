"""Write docs/reference/cli.md, the help of every command, from the code: python docs/reference_cli.py"""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).with_name("reference") / "cli.md"
INTRODUCTION = """# Command line

Every flag of every command, made from the program by `python docs/reference_cli.py`; a test holds the page equal to
`keeptune VERB --help`. A key of a [run file](run-file.md) is a flag without its dashes in front.

"""


def page() -> str:
    """The page."""
    from keeptune.cli import app  # noqa: PLC0415 — so that reading INTRODUCTION loads nothing

    text: str = app.generate_docs(output_format="markdown", recursive=True, heading_level=1)
    text = text.replace("docs/data-formats.md", "[data formats](../data-formats.md)")
    _, _, commands = text.partition("\n")  # the program's own heading
    head, _, rest = commands.partition("## Table of Contents")  # the site has its own
    commands = head + rest[rest.index("**Commands**") :]
    lines = (line.rstrip() for line in commands.strip().splitlines())
    return INTRODUCTION + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
