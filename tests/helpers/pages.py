"""A page as a browser's parser would read it, and hostile text to put into it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

HOSTILE = (
    '</script></textarea><script>document.title="hacked"</script>{{7*7}}<img src=x onerror=\'document.title="hacked"\'>'
)
LINK = '<a href="javascript:document.title=1">&amp;"quoted"</a>'


class Page(HTMLParser):
    """Elements with their attributes, and the text of each by its tag, as a browser's parser would read them."""

    VOID = frozenset({"meta", "link", "img"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, list[str]]] = []
        self._open: list[int] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(len(self.texts))
            self.texts.append((tag, []))

    def handle_endtag(self, tag: str) -> None:
        opened = self._open.pop()
        assert self.texts[opened][0] == tag, f"<{self.texts[opened][0]}> is closed by </{tag}>"

    def handle_data(self, data: str) -> None:
        for opened in self._open:
            self.texts[opened][1].append(data)

    def all(self, tag: str) -> list[str]:
        return ["".join(parts) for name, parts in self.texts if name == tag]

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def words(text: str) -> str:
    return re.sub(r"\s+", " ", text)
