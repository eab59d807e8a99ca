"""How keeptune's text reads: no sentence over 30 words, and none of the phrases that it once had. Part of `make check`.

    python tests/docs/words.py             # README, docs, the help of the command line; exit code 1 with the places

Pages that a program writes, the log of decisions and quoted output are left out. No library is imported, so that it is
done in a second.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST_WORDS = 30
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/index.md",
    "docs/method.md",
    "docs/limits.md",
    "docs/faq.md",
    "docs/comparison.md",
    "docs/api.md",
    "docs/architecture.md",
    "docs/tutorials/*.md",
    "docs/how-to/*.md",
    "docs/reference/[!c]*.md",
)
HELP = (
    "src/keeptune/cli/*.py",
    "src/keeptune/runs/settings.py",
    "src/keeptune/train/config.py",
    "src/keeptune/demo/*.py",
)
# What the field has a word for, or what nobody would say to a colleague.
FORBIDDEN = (
    r"settings? that cannot be meant",
    r"of drawing",
    r"is of 1 always",
    r"goes on where it was",
    r"stands already",
    r"only what is sure",
    r"would tell\b",
    r"is none\b",
    r"does not stay it",
    r"\bwhat is told\b",
    r"\bsuit_attention\b|\bkept_predictions\b|\boff_fault\b|\bmoving_base\b",
    r"\bmeter_\w+",
    r"\bstudentised\b|\bminimise\b|\bbehaviour\b|\bcolour\b|\bstabilised\b|\boptimiser\b",
)
SENTENCE = re.compile(r"(?<=[.!?;:])\s+(?=[A-Z`*\"“(])|\n\s*\n|\n(?=\s*(?:[-*|]|\d+\.)\s)|\|")
WORD = re.compile(r"[A-Za-z][\w’'-]*")


def main() -> int:
    """Print each fault with its place; the exit code."""
    faults = [f"{place}: {fault}" for place, text in texts() for fault in faults_of(text)]
    print("\n".join(faults) if faults else "words: no fault")
    return bool(faults)


def texts() -> Iterator[tuple[str, str]]:
    """Every text with its place."""
    for pattern in PAGES:
        for path in sorted(ROOT.glob(pattern)):
            yield str(path.relative_to(ROOT)), prose(path.read_text(encoding="utf-8"))
    for pattern in HELP:
        for path in sorted(ROOT.glob(pattern)):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", prose(node.value)


def prose(text: str) -> str:
    """Text without code blocks, formulas, citations, addresses and headings."""
    text = re.sub(r"^ {0,3}(```|~~~).*?^ {0,3}\1", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"\$\$.*?\$\$", "", text, flags=re.DOTALL)
    text = re.sub(r"^(?: {4,}|\t|#|:::).*$", "", text, flags=re.MULTILINE)
    return re.sub(r"\]\([^)]*\)", "]", text)


def faults_of(text: str) -> Iterator[str]:
    """What is wrong with one text."""
    for pattern in FORBIDDEN:
        for match in re.finditer(pattern, text, re.IGNORECASE):
            yield f"says {match[0]!r}"
    for sentence in SENTENCE.split(text):
        words = WORD.findall(re.sub(r"`[^`]*`", "code", sentence or ""))
        if len(words) > MOST_WORDS:
            yield f"{len(words)} words: {' '.join(sentence.split())[:100]} ..."


if __name__ == "__main__":
    sys.exit(main())
