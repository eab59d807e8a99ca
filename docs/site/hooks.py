"""What MkDocs is told beyond mkdocs.yml: pages outside docs/, formulas as MathML, and llms.txt.

A page of docs/ may link to any file of the repository by its relative path, as on a hosting site. Such files become
part of the site under their own path, and links are rewritten to them; a link to nothing fails the strict build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
FIRST = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "lab/README.md", "lab/LOG.md", "benchmarks/RESULTS.md")
LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^)\s#]*)(#[^)\s]*)?(\))")
CODE = re.compile(r"(^ {0,3}(```|~~~).*?^ {0,3}\2\s*$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file that a page links to, page by page, until there is nothing new."""
    pages = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    pages += [ROOT / name for name in FIRST]
    seen: set[Path] = {Path(file.abs_src_path) for file in files if file.abs_src_path}
    while pages:
        page = pages.pop()
        if page not in seen:
            seen.add(page)
            files.append(_file(page, config))
        for target in _linked(page):
            if target in seen or target in pages:
                continue
            if target.suffix == ".md":
                pages.append(target)
            else:
                seen.add(target)
                files.append(_file(target, config))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as the site has them, and formulas out of Markdown's way."""
    source = Path(str(page.file.abs_src_path))

    def relink(match: re.Match[str]) -> str:
        target = _resolve(source, match[2])
        if target is None:
            return match[0]
        to = posixpath.relpath(_uri(target), posixpath.dirname(page.file.src_uri) or ".")
        return f"{match[1]}{to}{match[3] or ''}{match[4]}"

    parts = CODE.split(_hidden(markdown))
    # CODE has two groups: text, code, fence, text, …
    text = [LINK.sub(relink, part) if number % 3 == 0 else part for number, part in enumerate(parts)]
    return "".join(part for number, part in enumerate(text) if number % 3 != 2)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Formulas as MathML, which browsers draw without a script."""

    def formula(match: re.Match[str]) -> str:
        return convert(bytes.fromhex(match[2]).decode(), display=match[1])

    return re.sub("\u2e28(block|inline):([0-9a-f]+)\u2e29", formula, html)


def on_post_build(config: MkDocsConfig) -> None:
    """llms.txt, the list of pages for language models, and each page as Markdown beside its HTML."""
    site = Path(config.site_dir)
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", ""]
    for entry in config.nav or []:
        ((title, content),) = entry.items()
        pages = content if isinstance(content, list) else [content]
        lines.append(f"## {title}")
        for one in pages:
            uri = next(iter(one.values())) if isinstance(one, dict) else one
            source = DOCS / uri if (DOCS / uri).is_file() else ROOT / uri
            text = source.read_text(encoding="utf-8")
            copy = site / uri
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(text, encoding="utf-8")
            heading = next(line[2:] for line in text.splitlines() if line.startswith("# "))
            lines.append(f"- [{heading}]({uri})")
        lines.append("")
    (site / "llms.txt").write_text("\n".join(lines), encoding="utf-8")


def _linked(page: Path) -> list[Path]:
    text = "".join(CODE.split(page.read_text(encoding="utf-8"))[::3])
    found = (_resolve(page, match[2]) for match in LINK.finditer(text))
    return [target for target in found if target is not None]


def _resolve(source: Path, link: str) -> Path | None:
    """The file that a link on a page means; None for an address, or for nothing."""
    if not link or ":" in link:
        return None
    target = (source.parent / link).resolve()
    if target.is_dir():
        target /= "README.md"
    return target if target.is_file() and target.is_relative_to(ROOT) else None


def _uri(path: Path) -> str:
    return path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT).as_posix()


def _file(path: Path, config: MkDocsConfig) -> File:
    return File.generated(config, _uri(path), abs_src_path=str(path))


def _hidden(markdown: str) -> str:
    r"""`$$…$$` and `$…$`, on pages that have the former, as marks that Markdown leaves alone."""
    if "$$" not in markdown:
        return markdown
    marked = re.sub(r"\$\$(.+?)\$\$", lambda match: _mark("block", match[1]), markdown, flags=re.DOTALL)
    return re.sub(r"(?<![\\$`])\$([^$\n]+?)\$", lambda match: _mark("inline", match[1]), marked)


def _mark(kind: str, formula: str) -> str:
    return f"\u2e28{kind}:{' '.join(formula.split()).encode().hex()}\u2e29"
